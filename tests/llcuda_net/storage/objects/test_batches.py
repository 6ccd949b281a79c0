"""Batches in the store: their states, and that each line has one outcome."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Details, Line, Outcome
from llcuda_net.storage.objects.interface import Database
from tests.support.storage.objects import Emptied


def made(
    db: Database, id_: str = "batch_1", *, owner: str = "ann", key: str | None = None
) -> Batch:
    """A batch of a file of its own."""
    seq = files.begin(db, f"file-of-{id_}", owner, 1)
    file = files.finish(db, seq, purpose="batch", name="a.jsonl", expires=None)
    details = Details("24h", {"a": "b"}, 5)
    return batches.create(
        db,
        id_,
        file,
        owner=owner,
        endpoint="/v1/embeddings",
        details=details,
        created=10,
        expires=20,
        key=key,
    )


def begun(db: Database, lines: int, id_: str = "batch_1") -> Batch:
    """A batch of so many lines that are asked."""
    batch = made(db, id_)
    batches.add_lines(db, batch.seq, [Line(n, 10 * n, 9, f"id {n}") for n in range(lines)])
    batches.begin(db, batch.seq, lines, 11)
    return batches.get(db, batch.seq)


def outcome(number: int, *, failed: bool = False, data: bytes = b"{}\n") -> Outcome:
    return Outcome(number, failed, data, 3, 2)


def test_a_new_one(db: Database) -> None:
    batch = made(db, key="k")
    assert batch == batches.find(db, "batch_1", "ann") == batches.find(db, "batch_1", None)
    assert batches.find(db, "batch_1", "bob") is None
    assert batches.by_key(db, "k", "ann") == batch
    assert batches.by_key(db, "k", "bob") is None
    assert (batch.state, batch.ends, batch.total) == ("validating", "completed", 0)
    assert batch.details == Details("24h", {"a": "b"}, 5)
    assert batch.input_id == "file-of-batch_1"
    assert batch.open


def test_from_its_check_to_its_files(db: Database) -> None:
    batch = begun(db, 3)
    assert (batch.state, batch.total, batch.details.times) == (
        "in_progress",
        3,
        {"in_progress": 11},
    )
    assert batches.line(db, batch.seq, 1) == Line(1, 10, 9, "id 1")
    batches.record(db, batch.seq, [outcome(2), outcome(0, failed=True)])
    assert [one.number for one in batches.missing(db, batch.seq, 0, 9)] == [1]
    batches.record(db, batch.seq, [outcome(1)])
    batches.finalize(db, batch.seq, "completed", 12)
    assert batches.get(db, batch.seq).state == "finalizing"
    batch = batches.finish(db, batch.seq, "file-o", "file-e", 13)
    assert (batch.state, batch.output, batch.error) == ("completed", "file-o", "file-e")
    assert (batch.completed, batch.failed) == (2, 1)
    assert (batch.input_tokens, batch.output_tokens) == (9, 6)
    assert batch.details.times == {"in_progress": 11, "finalizing": 12, "completed": 13}
    assert not batch.open


def test_the_first_outcome_of_a_line_counts(db: Database) -> None:
    batch = begun(db, 2)
    batches.record(db, batch.seq, [outcome(0, data=b"first\n")])
    batches.record(db, batch.seq, [outcome(0, data=b"second\n"), outcome(0, failed=True)])
    found = batches.outcomes(db, batch.seq, 0, 1 << 20)
    assert [one.data for one in found] == [b"first\n"]
    batch = batches.get(db, batch.seq)
    assert (batch.completed, batch.failed, batch.output_tokens) == (1, 0, 2)


def test_what_it_gives_counts_before_it_is_a_file(db: Database) -> None:
    batch = begun(db, 3)
    before = files.used(db, "ann")
    batches.record(db, batch.seq, [outcome(0, data=b"x" * 10_000), outcome(1, failed=True)])
    batches.record(db, batch.seq, [outcome(0, data=b"y" * 10_000)])  # it was there
    assert files.used(db, "ann") == before + 10_000 + len(outcome(1).data)
    assert files.used(db, "bob") == 0
    batches.finalize(db, batch.seq, "completed", 1)
    assert files.used(db, "ann") == before  # what it becomes counts itself


def test_outcomes_come_in_order_and_not_all_at_once(db: Database) -> None:
    batch = begun(db, 9)
    other = begun(db, 9, "batch_2")
    for number in (5, 0, 8, 3, 1, 2):
        batches.record(db, batch.seq, [outcome(number, data=b"%d" % number * 100)])
        batches.record(db, other.seq, [outcome(number)])
    assert [one.number for one in batches.outcomes(db, batch.seq, 0, 250)] == [0, 1, 2]
    assert [one.number for one in batches.outcomes(db, batch.seq, 3, 1)] == [3]
    assert [one.number for one in batches.outcomes(db, batch.seq, 4, 9999)] == [5, 8]
    assert batches.outcomes(db, batch.seq, 9, 9999) == []


def test_a_damaged_outcome_is_empty_and_has_failed(db: Database) -> None:
    batch = begun(db, 2)
    batches.record(db, batch.seq, [outcome(0), outcome(1)])
    db.run("UPDATE outcomes SET data = ? WHERE number = 0", (b"\0",))
    assert [(one.failed, one.data) for one in batches.outcomes(db, batch.seq, 0, 999)] == [
        (True, b""),
        (False, b"{}\n"),
    ]


def test_errors_of_a_check_end_it(db: Database) -> None:
    batch = made(db)
    errors = [{"code": "c", "message": "m", "param": None, "line": 3}]
    batches.fail(db, batch.seq, errors, 12)
    batch = batches.get(db, batch.seq)
    assert (batch.state, batch.details.errors) == ("failed", errors)
    assert batches.cancel(db, batch.seq, 13).state == "failed"


def test_a_check_that_begins_anew(db: Database) -> None:
    batch = made(db)
    for _ in range(2):
        batches.forget_lines(db, batch.seq)
        batches.add_lines(db, batch.seq, [Line(0, 0, 5, "a")])
    assert len(batches.missing(db, batch.seq, 0, 9)) == 1


@pytest.mark.parametrize("when", ["checked", "asked"])
def test_one_that_is_cancelled(db: Database, when: str) -> None:
    batch = made(db) if when == "checked" else begun(db, 2)
    batch = batches.cancel(db, batch.seq, 15)
    assert (batch.state, batch.ends, batch.open) == ("cancelling", "cancelled", True)
    # What comes too late changes nothing.
    batches.begin(db, batch.seq, 2, 16)
    batches.finalize(db, batch.seq, "completed", 16)
    assert batches.cancel(db, batch.seq, 17).details.times["cancelling"] == 15
    batch = batches.finish(db, batch.seq, None, None, 18)
    assert (batch.state, batch.details.times["cancelled"]) == ("cancelled", 18)
    assert batches.cancel(db, batch.seq, 19) == batch


def test_one_that_is_cancelled_and_turns_out_wrong(db: Database) -> None:
    batch = made(db)
    batches.cancel(db, batch.seq, 15)
    batches.fail(db, batch.seq, [], 16)
    assert batches.get(db, batch.seq).state == "cancelled"


def test_lists(db: Database) -> None:
    all_ = [made(db, f"batch_{n}", owner="ann" if n % 2 else "bob") for n in range(6)]
    assert [one.id for one in batches.listed(db, None, limit=9)] == [one.id for one in all_[::-1]]
    anns = [one.id for one in batches.listed(db, "ann", limit=2)]
    assert anns == ["batch_5", "batch_3"]
    rest = batches.listed(db, "ann", limit=9, after=all_[3].seq)
    assert [one.id for one in rest] == ["batch_1"]
    batches.fail(db, all_[0].seq, [], 1)
    batches.cancel(db, all_[1].seq, 1)
    assert [one.id for one in batches.unfinished(db)] == [one.id for one in all_[1:]]
    assert [one.id for one in batches.unfinished(db, "bob")] == ["batch_2", "batch_4"]


def test_what_is_over_is_removed_in_steps(db: Database) -> None:
    batch, other = begun(db, 6000), begun(db, 3, "batch_2")
    batches.record(db, batch.seq, [outcome(n) for n in range(450)])
    batches.record(db, other.seq, [outcome(0)])
    assert not batches.sweep(db)
    batches.cancel(db, batch.seq, 1)
    assert not batches.sweep(db)
    batches.finish(db, batch.seq, None, None, 2)
    steps = 0
    while batches.sweep(db):
        steps += 1
    assert 2 < steps < 6
    for table in ("lines", "outcomes"):
        kept = [row[0] for row in db.rows(f"SELECT DISTINCT batch FROM {table}")]
        assert kept == [other.seq]
    assert batches.get(db, batch.seq).completed == 450


class Machine(RuleBasedStateMachine):
    """One batch, whatever comes in whatever order."""

    LINES = 7

    def __init__(self, emptied: Emptied) -> None:
        super().__init__()
        self._opened = ExitStack()
        self.db = self._opened.enter_context(emptied())
        self.seq = begun(self.db, self.LINES).seq
        self.first: dict[int, tuple[bool, bytes]] = {}
        self.written = 0

    def teardown(self) -> None:
        self._opened.close()

    def state(self) -> str:
        return batches.get(self.db, self.seq).state

    @precondition(lambda self: self.state() in batches.OPEN)
    @rule(
        found=st.lists(st.tuples(st.integers(0, LINES - 1), st.booleans()), min_size=1, max_size=4)
    )
    def record(self, found: list[tuple[int, bool]]) -> None:
        some = []
        for number, failed in found:
            self.written += 1
            data = b"%d\n" % self.written
            some.append(outcome(number, failed=failed, data=data))
            self.first.setdefault(number, (failed, data))
        batches.record(self.db, self.seq, some)

    @rule()
    def cancel(self) -> None:
        batches.cancel(self.db, self.seq, 1)

    @rule(ends=st.sampled_from(["completed", "expired", "failed"]))
    def finalize(self, ends: str) -> None:
        batches.finalize(self.db, self.seq, ends, 1)

    @precondition(lambda self: self.state() in ("finalizing", "cancelling"))
    @rule()
    def finish(self) -> None:
        ends = batches.get(self.db, self.seq).ends
        assert batches.finish(self.db, self.seq, None, None, 1).state == ends

    @invariant()
    def each_line_has_its_first_outcome(self) -> None:
        found = batches.outcomes(self.db, self.seq, 0, 1 << 20)
        assert {one.number: (one.failed, one.data) for one in found} == self.first
        assert [one.number for one in found] == sorted(self.first)
        left = [one.number for one in batches.missing(self.db, self.seq, 0, 99)]
        assert left == [n for n in range(self.LINES) if n not in self.first]

    @invariant()
    def the_counts_are_those_of_the_outcomes(self) -> None:
        batch = batches.get(self.db, self.seq)
        failed = sum(failed for failed, _ in self.first.values())
        assert (batch.completed, batch.failed) == (len(self.first) - failed, failed)
        assert batch.input_tokens == 3 * len(self.first)


def test_a_batch(emptied: Emptied) -> None:
    class Of(Machine):
        """On this database."""

        def __init__(self) -> None:
            super().__init__(emptied)

    run_state_machine_as_test(
        Of,
        settings=settings(max_examples=50, stateful_step_count=20, deadline=None),
    )
