"""A generation that stops in the middle, as a start would find it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.aside import set_aside
from llcuda_net.generation.state import Outcome, State
from llcuda_net.storage.channels import Switch
from llcuda_net.storage.packed_log import CHUNK, PackedLog
from llcuda_net.storage.records import packed
from tests.support.generations import generation_of


class Entry:
    """What the journal has."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.switches: list[Switch] = []


def aside(generation: Generation, count: int) -> Any:
    return set_aside(generation, cast(Any, Entry(count)))


def running(count: int) -> Generation:
    found = generation_of([str(n) for n in range(count)], state=State.QUEUED)
    found._told = None
    found.ids = list(range(count))
    return found


@pytest.mark.parametrize("count", [0, 1, 5, CHUNK, CHUNK + 1])
def test_it_has_what_the_journal_has(count: int) -> None:
    generation = running(CHUNK + 3)
    found = aside(generation, count)
    assert found.log.pieces == generation.pieces[:count]
    assert found.log.ids == generation.ids[:count]
    assert found.packed.count == count
    assert found.concluded is None
    assert found.dispatched is None


def test_counts_and_probabilities_go_with_their_pieces() -> None:
    generation = running(4)
    generation.counts = [1, 3, 1, 2]
    generation.logprobs = [packed([n]) for n in range(4)]
    log = aside(generation, 3).log
    assert log.counts == [1, 3, 1]
    assert log.logprobs == generation.logprobs[:3]


def test_where_it_was_sent_is_known() -> None:
    generation = running(1)
    generation.model, generation.upstream = {"name": "m"}, "http://u"
    generation.rendered = [1, 2]
    dispatched = aside(generation, 1).dispatched
    assert dispatched is not None
    assert (dispatched.upstream, dispatched.model, dispatched.prompt) == (
        "http://u",
        {"name": "m"},
        [1, 2],
    )


def test_an_end_counts_only_with_all_that_comes_before_it() -> None:
    generation = running(3)
    generation.conclude(Outcome("stop", "x", "m", {"completion_tokens": 3}))
    assert aside(generation, 2).concluded is None
    end = aside(generation, 3).concluded
    assert end is not None
    assert (end.reason, end.stop, end.usage) == ("stop", "x", {"completion_tokens": 3})


def test_a_log_that_nobody_has_looked_at_stays_packed() -> None:
    log = aside(running(3), 3).packed
    generation = running(0)
    generation.restore(log, [])
    found = aside(generation, 3)
    assert isinstance(found.packed, PackedLog)
    assert found.packed is log
