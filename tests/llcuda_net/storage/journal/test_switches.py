"""Where a log changes between channels is kept, and never guessed."""

from __future__ import annotations

from llcuda_net.storage.journal.assembly import Collector, OpenGeneration
from llcuda_net.storage.records import Appended, Dispatched, Ended, Switch, Switched, encode
from tests.support.storage.journals import reopened, running, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened

THOUGHT = Switch(0, "reasoning")
CALL = Switch(3, "tool_call", 0, "call_1", "add")


async def test_switches_come_back_however_often_the_journal_is_opened() -> None:
    files = SimulatedFiles({})
    async with running(files) as journal:
        entry = journal.start(opened(1))
        entry.switch(THOUGHT)
        tokens(entry, 3)
        entry.switch(CALL)
        tokens(entry, 2)
        await journal.sync()
    for _ in range(3):
        async with running(files):
            pass
    (found,) = reopened(files)
    assert found.switches == [THOUGHT, CALL]
    assert len(found.log.pieces) == 5
    found.ended = Ended(state="done")
    assert found.result().switches == [THOUGHT, CALL]


def assembled(*records: object) -> OpenGeneration:
    collector = Collector((), {})
    collector.add([encode(opened(1, slot=slot)) for slot in (1, 2)])
    collector.add([encode(record) for record in records])
    (found,) = collector.generations()
    return found


def test_a_switch_beyond_the_log_is_dropped() -> None:
    found = assembled(
        Switched(1, 0, "reasoning"), Appended(1, 0, ["a"], [1], switches=1), Switched(1, 1, "text")
    )
    assert (found.switches, found.log.pieces, found.gap) == ([THOUGHT], ["a"], False)


def test_pieces_of_a_switch_that_is_lost_are_not_taken_for_text() -> None:
    found = assembled(
        Appended(1, 0, ["a"], [1]),
        # The record of the switch was damaged.
        Appended(1, 1, ['{"a"', ":1}"], [2, 3], switches=1),
        Ended(slot=1, count=3, state="done"),
        Dispatched(slot=1, upstream="u"),
    )
    assert (found.log.pieces, found.gap, found.ended) == (["a"], True, None)


def test_records_of_two_slots_fit_together() -> None:
    found = assembled(
        Appended(1, 0, ["a", "b"], [1, 2], switches=1),
        Switched(1, 1, "text"),
        Appended(2, 0, ["a", "b", "c"], [1, 2, 3], switches=1),
        Switched(2, 1, "text"),
    )
    assert (found.log.pieces, found.switches) == (["a", "b", "c"], [Switch(1, "text")])
