"""Files in the store: compared with a model, whatever is done in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.database import SqliteDatabase
from llcuda_net.storage.objects.files import CHUNK, LEAST
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.results.connection import connect
from llcuda_net.storage.results.migrations import migrate
from tests.support.storage.objects import Emptied


def kept(
    db: Database,
    data: bytes = b"",
    *,
    id_: str = "file-1",
    owner: str = "ann",
    purpose: str = "batch",
    expires: int | None = None,
) -> files.File:
    """A whole file."""
    seq = files.begin(db, id_, owner, 1)
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    files.append(db, seq, 0, chunks)
    return files.finish(db, seq, purpose=purpose, name="a.jsonl", expires=expires)


def test_a_file_is_there_when_it_is_ready(db: Database) -> None:
    seq = files.begin(db, "file-1", "ann", 1)
    files.append(db, seq, 0, [b"a" * CHUNK])
    files.append(db, seq, 1, [b"b" * 5])
    assert files.find(db, "file-1", "ann", 2) is None
    assert files.used(db, "ann") == CHUNK + 5
    file = files.finish(db, seq, purpose="batch", name="a.jsonl", expires=9)
    assert file == files.find(db, "file-1", "ann", 8)
    assert (file.bytes, file.purpose, file.name, file.created) == (CHUNK + 5, "batch", "a.jsonl", 1)
    assert files.find(db, "file-1", None, 8) == file
    assert files.find(db, "file-1", "bob", 8) is None
    assert files.find(db, "file-1", "ann", 9) is None
    assert files.id_of(db, seq) == "file-1"
    assert files.id_of(db, seq + 1) == ""


@pytest.mark.parametrize("start", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 3])
@pytest.mark.parametrize("size", [0, 1, 10, CHUNK, 2 * CHUNK + 1])
def test_parts_of_a_file(db: Database, start: int, size: int) -> None:
    data = bytes(i // CHUNK * 7 + i % 251 & 0xFF for i in range(3 * CHUNK - 2))
    file = kept(db, data)
    assert files.part(db, file.seq, start, size) == data[start : start + size]


def test_a_damaged_chunk_is_an_error_and_no_content(db: Database) -> None:
    file = kept(db, b"x" * (2 * CHUNK))
    db.run("UPDATE chunks SET data = ? WHERE number = 1", (bytes(CHUNK),))
    assert files.chunk(db, file.seq, 0) == b"x" * CHUNK
    with pytest.raises(StorageError, match="part 1 of the file file-1 is damaged") as caught:
        files.chunk(db, file.seq, 1)
    assert caught.value.code == StorageError.DAMAGED


def test_a_file_that_a_batch_reads_stays_until_the_batch_is_over(db: Database) -> None:
    file = kept(db, b"x" * 10_000)
    details = batches.Details("24h")
    batch = batches.create(
        db, "b", file, owner="ann", endpoint="", details=details, created=1, expires=2
    )
    files.discard(db, file.seq)
    assert not files.sweep(db, 1)
    assert files.find(db, "file-1", "ann", 1) is None
    assert files.used(db, "ann") == 10_000
    assert files.part(db, file.seq, 5, 5) == b"xxxxx"
    batches.fail(db, batch.seq, [], 1)
    assert files.used(db, "ann") == 0
    assert files.sweep(db, 1)
    assert not files.sweep(db, 1)
    assert db.value("SELECT count(*) FROM chunks") == 0


def test_a_large_file_is_removed_in_steps_and_its_room_is_given_back(tmp_path: Path) -> None:
    connection = connect(tmp_path / "objects.db", create=True)
    migrate(connection, OBJECTS)
    db = SqliteDatabase(connection)
    file = kept(db, bytes(40 * CHUNK))
    pages = db.value("PRAGMA page_count")
    files.discard(db, file.seq)
    steps = 0
    while files.sweep(db, 1):
        steps += 1
    assert steps > 2
    assert db.value("PRAGMA page_count") < pages // 10
    connection.close()


@dataclass
class _Known:
    seq: int
    owner: str
    purpose: str
    data: bytes
    state: str
    expires: int | None


class Machine(RuleBasedStateMachine):
    """Everything that is done with files, beside a model of them."""

    def __init__(self, emptied: Emptied) -> None:
        super().__init__()
        self._opened = ExitStack()
        self.db = self._opened.enter_context(emptied())
        self.known: dict[str, _Known] = {}
        self.now = 10

    def teardown(self) -> None:
        self._opened.close()

    def _one_of(self, pick: int, state: str) -> str | None:
        found = sorted(id_ for id_, one in self.known.items() if one.state == state)
        return found[pick % len(found)] if found else None

    @rule(owner=st.sampled_from(["", "ann", "bob"]))
    def begin(self, owner: str) -> None:
        id_ = f"file-{len(self.known)}"
        seq = files.begin(self.db, id_, owner, self.now)
        self.known[id_] = _Known(seq, owner, "", b"", "uploading", None)

    @rule(pick=st.integers(0, 9), sizes=st.lists(st.integers(1, 9000), max_size=3))
    def append(self, pick: int, sizes: list[int]) -> None:
        id_ = self._one_of(pick, "uploading")
        if id_ is None or len(self.known[id_].data) % CHUNK:
            return
        one = self.known[id_]
        chunks = [bytes([i + 1]) * CHUNK for i in range(len(sizes[1:]))]
        chunks += [bytes([9]) * size for size in sizes[:1]]
        files.append(self.db, one.seq, len(one.data) // CHUNK, chunks)
        one.data += b"".join(chunks)

    @rule(
        pick=st.integers(0, 9),
        purpose=st.sampled_from(["batch", "vision"]),
        life=st.none() | st.integers(1, 30),
    )
    def finish(self, pick: int, purpose: str, life: int | None) -> None:
        id_ = self._one_of(pick, "uploading")
        if id_ is not None:
            one = self.known[id_]
            one.state, one.purpose = "ready", purpose
            one.expires = None if life is None else self.now + life
            files.finish(self.db, one.seq, purpose=purpose, name="n", expires=one.expires)

    @rule(pick=st.integers(0, 9), state=st.sampled_from(["ready", "uploading"]))
    def discard(self, pick: int, state: str) -> None:
        id_ = self._one_of(pick, state)
        if id_ is not None:
            files.discard(self.db, self.known[id_].seq)
            self.known[id_].state = "deleted"

    @rule()
    def restart(self) -> None:
        if self.db.shared:  # the server is gone, and another one is there
            self.db.run("UPDATE servers SET fenced = true")
            self.db.life = self.db.value(
                "INSERT INTO servers (name, address) VALUES ('', '') RETURNING number"
            )
        files.abandon(self.db)
        for one in self.known.values():
            if one.state == "uploading":
                one.state = "deleted"

    @rule(steps=st.integers(1, 20))
    def sweep(self, steps: int) -> None:
        self._expire()
        for _ in range(steps):
            if not files.sweep(self.db, self.now):
                sql = "SELECT count(*) FROM files WHERE state = 'deleted'"
                assert self.db.value(sql) == 0
                break

    @rule(by=st.integers(1, 20))
    def later(self, by: int) -> None:
        self.now += by

    def _expire(self) -> None:
        for one in self.known.values():
            if one.state == "ready" and one.expires is not None and one.expires <= self.now:
                one.state = "deleted"

    def _there(self, keep: Callable[[_Known], Any] = lambda _: True) -> list[str]:
        return [
            id_
            for id_, one in self.known.items()
            if one.state == "ready"
            and (one.expires is None or one.expires > self.now)
            and keep(one)
        ]

    @invariant()
    def what_is_there_is_found_and_listed(self) -> None:
        for owner in (None, "", "ann"):
            there = self._there(lambda one, owner=owner: owner in (None, one.owner))  # type: ignore[misc]
            found = files.listed(self.db, owner, self.now, limit=100)
            assert [one.id for one in found] == there[::-1]
            assert [
                one.id for one in files.listed(self.db, owner, self.now, limit=2, ascending=True)
            ] == there[:2]
            if len(there) > 2:
                after = self.known[there[1]].seq
                page = files.listed(self.db, owner, self.now, limit=2, after=after, ascending=True)
                assert [one.id for one in page] == there[2:4]
        batch = files.listed(self.db, None, self.now, limit=100, purpose="batch")
        assert [one.id for one in batch] == self._there(lambda one: one.purpose == "batch")[::-1]

    @invariant()
    def contents_are_as_they_were_written(self) -> None:
        for id_ in self._there():
            one = self.known[id_]
            found = files.find(self.db, id_, one.owner, self.now)
            assert found is not None
            assert found.bytes == len(one.data)
            assert files.part(self.db, one.seq, 0, found.bytes + 1) == one.data

    @invariant()
    def what_an_owner_uses(self) -> None:
        for owner in ("", "ann", "bob"):
            counted = [
                max(LEAST, len(one.data))
                for one in self.known.values()
                if one.owner == owner and one.state != "deleted"
            ]
            assert files.used(self.db, owner) == sum(counted)


def test_files(emptied: Emptied) -> None:
    class Of(Machine):
        """On this database."""

        def __init__(self) -> None:
            super().__init__(emptied)

    run_state_machine_as_test(
        Of,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None),
    )
