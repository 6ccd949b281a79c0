"""Equal seeds ask the same; a conversation goes on with what was answered."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tools.slots.workload import KINDS, Sizes, workload

SIZES = Sizes(prompt=5, system=20, answer=10, longest=600)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_ask_the_same(kind: str) -> None:
    one, other = (workload(kind, 2, SIZES, 1) for _ in range(2))
    for stream in (0, 1, 1, 0):
        assert one.next(stream) == other.next(stream)
    assert workload(kind, 2, SIZES, 2).next(0) != workload(kind, 2, SIZES, 1).next(0)


def test_distinct_prompts_have_nothing_in_common_and_one_prompt_all() -> None:
    distinct = workload("distinct", 1, SIZES, 1)
    assert len({distinct.next(0).prompt.split()[0] for _ in range(20)}) > 15
    same = workload("one", 1, SIZES, 1)
    asked = [same.next(0) for _ in range(20)]
    assert len({one.prompt for one in asked}) == 1
    assert all(5 <= one.tokens <= 15 for one in asked)


def test_conversations_go_on_in_turn_and_begin_alike() -> None:
    talks = workload("conversations", 2, SIZES, 1)
    prompts = []
    for _ in range(40):
        prompt = talks.next(0).prompt
        prompts.append(prompt)
        talks.answered(0, " an answer")
    first = prompts[0].partition("\n")[0]
    assert all(prompt.startswith(first) for prompt in (*prompts, talks.next(1).prompt))
    grown = [b.startswith(a + " an answer") for a, b in pairwise(prompts[::2])]
    assert grown.count(False) == sum(len(p) > SIZES.longest for p in prompts[::2][:-1]) > 0
    assert not prompts[1].startswith(prompts[0])
