"""How much of a prompt is held already, guessed from its text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.upstream.prompts.prefix_cache import (
    A_PART,
    BLOCK,
    HitRate,
    chain_of,
    shared,
    text_of,
    tokens_in,
)
from llcuda_protocol.kinds import MAX_TOKEN_ID


@settings(max_examples=50)
@given(*[st.text("abé", max_size=2 * BLOCK)] * 3)
def test_two_prompts_share_the_blocks_that_they_share(start: str, one: str, other: str) -> None:
    a, b = start + one, start + other
    common = 0
    while common < min(len(a), len(b)) and a[common] == b[common]:
        common += 1
    assert shared(chain_of(a), chain_of(b)) == common // BLOCK
    assert len(chain_of(a)) == len(a) // BLOCK


def test_a_block_counts_only_with_all_that_is_before_it() -> None:
    same = "x" * BLOCK
    one, other = chain_of("a" * BLOCK + same), chain_of("b" * BLOCK + same)
    assert one[1] != other[1]
    assert chain_of("x" * (BLOCK - 1)) == ()


def test_a_longer_conversation_begins_with_a_shorter_one() -> None:
    first = [{"role": "user", "content": "hello"}]
    answered = [*first, {"role": "assistant", "content": "yes"}]
    second = [*answered, {"role": "user", "content": "and then?"}]
    assert text_of(None, second).startswith(text_of(None, answered))
    assert text_of(None, answered).startswith(text_of(None, first))
    # What one says is not taken for what another says.
    other = [{"role": "system", "content": "hello"}]
    assert text_of(None, other) != text_of(None, first)


def test_parts_and_tool_calls_are_of_the_text() -> None:
    def image(data: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        return {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}

    assert text_of(None, [image("A" * 10_000)]) == text_of(None, [image("A" * 10_000)])
    assert text_of(None, [image("A")]) != text_of(None, [image("B")])
    assert A_PART <= len(text_of(None, [image("A" * 10_000)])) < A_PART + 100
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": '{"z": 1}'}}
    calls = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert "now" in text_of(None, calls)
    assert text_of(None, [*calls, image("A")]).startswith(text_of(None, calls))
    assert text_of(None, [{"role": "user", "content": [{"type": "text", "text": "a"}]}]) == (
        text_of(None, [{"role": "user", "content": "a"}])
    )


def test_a_prompt_of_ids_is_compared_by_its_ids() -> None:
    ids = list(range(100, 400))
    one, other = text_of(ids, None), text_of([*ids, 7, 8], None)
    assert other.startswith(one)
    assert text_of([1, 23], None) != text_of([12, 3], None)
    assert shared(chain_of(one), chain_of(other)) == len(one) // BLOCK > 0
    assert text_of(None, None) == ""


def test_each_id_counts_as_one_token() -> None:
    for ids in ([0] * 400, [MAX_TOKEN_ID] * 400, list(range(400))):
        text = text_of(ids, None)
        assert tokens_in(text) == 401
        assert text_of([*ids, 7], None).startswith(text)
    assert text_of([1, 0], None) != text_of([0, 1], None)


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("x" * 400, 101)])
def test_tokens_are_estimated(text: str, tokens: int) -> None:
    assert tokens_in(text) == tokens


def test_an_upstream_that_caches_nothing_is_not_believed_for_long() -> None:
    rate = HitRate()
    guesses = 0
    while rate.trusted():
        rate.record(64, 0)
        guesses += 1
    assert 1 < guesses < 10
    rate = HitRate()
    for _ in range(100):
        rate.record(64, 60)
        assert rate.trusted()


def test_what_was_not_believed_is_tried_again_and_may_convince() -> None:
    rate = HitRate()
    for _ in range(10):
        rate.record(64, 0)
    tried = [rate.trusted() for _ in range(2 * HitRate.RETRY)]
    assert tried.count(True) == 2
    for _ in range(10):
        rate.record(64, 100)  # more than was thought is all of it, and no more
    assert rate.mean <= 1.0
    assert rate.trusted()


def test_nothing_is_learnt_where_nothing_was_expected() -> None:
    rate = HitRate()
    for _ in range(100):
        rate.record(0, 0)
    assert rate.mean == 1.0
