"""Files, batches and conversations move between SQLite and PostgreSQL, to other numbers of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.transfer.objects import Side, count, transfer_objects
from llcuda_net.storage.transfer.sides import postgres_side, sqlite_side
from tests.support.storage.postgres import Postgres

ALL = 9  # objects that `fill` makes and that are copied


def insert(db: Database, table: str, **values: Any) -> int:
    names, places = ", ".join(values), ", ".join("?" * len(values))
    (found,) = db.rows(
        f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING *", [*values.values()]
    )
    return int(found[0]) if isinstance(found[0], int) else 0


def fill(db: Database, skip: int = 0) -> None:
    """Objects of each kind, behind so many others, so that numbers differ."""
    for number in range(skip):
        seq = _file(db, f"other-{number}")
        db.run("DELETE FROM files WHERE seq = ?", (seq,))
        insert(db, "entries", conversation=-1, id=f"e{number}")
    first = _file(db, "file-1", name="a\0\ue00c 漢字.jsonl")
    for number in range(40):
        insert(db, "chunks", file=first, number=number, hash=b"h", data=bytes([number]) * 100)
    _file(db, "file-2", state="deleted", expires=5)
    _file(db, "file-3", state="uploading")
    _batch(db, "batch-1", first, key="k")
    over = _batch(db, "batch-2", 0, state="completed", swept=1)
    for number in range(1, 1200):
        insert(db, "lines", batch=over, number=number, start=9, size=1, custom_id=f"c{number}")
        if number % 3 == 0:
            insert(db, "outcomes", batch=over, number=number, failed=0, hash=b"h", data=b"d")
    for name, size in (("conv-1", 0), ("conv-2", 7)):
        one = _conversation(db, name, size)
        parents = [0]
        for number in range(size):
            entry = {"id": f"gen-{number}", "item": b"{}" if number % 2 else None}
            parent = parents[number // 2]  # a tree
            parents.append(
                insert(db, "entries", conversation=one, parent=parent, basis=b"b", **entry)
            )
        db.run("UPDATE conversations SET head = ? WHERE seq = ?", (parents[-2:][0], one))
    insert(db, "hidden", conversation=one, item="item-1")
    for number in range(2):
        values = {"hash": bytes([number]), "owner": "ann", "bound": b"x"}
        insert(db, "sessions", **values, created=1, expires=2)


def _file(db: Database, id_: str, **changes: Any) -> int:
    values = {"id": id_, "owner": "ann", "state": "ready", "purpose": "batch", "name": "n"}
    return insert(db, "files", **{**values, "bytes": 7, "created": 1, **changes})


def _batch(db: Database, id_: str, file: int, **changes: Any) -> int:
    zeros = dict.fromkeys(("total", "completed", "failed", "input_tokens", "output_tokens"), 0)
    values = {"id": id_, "owner": "ann", "state": "in_progress", "ends": "completed"}
    more = {"endpoint": "/v1/x", "input": file, "input_id": "file-1", "created": 1, "expires": 2}
    rest = {"bytes": 3, "swept": 0, "details": b"{}"}
    return insert(db, "batches", **{**values, **more, **zeros, **rest, **changes})


def _conversation(db: Database, id_: str, size: int) -> int:
    values = {"id": id_, "owner": "", "title": "t", "pinned": 1, "created": 1, "updated": 2}
    return insert(db, "conversations", **values, metadata=b"{}", size=size, preview="p")


@contextmanager
def opened(kind: str, folder: Path, postgres: Postgres) -> Iterator[Side]:
    with ExitStack() as stack:
        if kind == "sqlite":
            folder.mkdir(exist_ok=True)
            found = stack.enter_context(sqlite_side(folder, write=True))
            assert found is not None
            yield found
        else:
            url = postgres.new_database()
            PostgresStore(url, write=True).close()
            yield stack.enter_context(postgres_side(url))


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite", "sqlite to sqlite"])
def two(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path
) -> Iterator[tuple[Side, Side]]:
    source, _, target = request.param.partition(" to ")
    with (
        opened(source, tmp_path / "a", postgres) as old,
        opened(target, tmp_path / "b", postgres) as new,
    ):
        old.change(lambda db: fill(db, 3))
        yield old, new


def shown(side: Side) -> dict[str, list[Any]]:
    """All that is there, by ids and not by numbers of rows."""
    ask: Callable[[str], list[Any]] = lambda sql: side.rows(sql, ())  # noqa: E731
    return {
        "files": ask(
            "SELECT f.id, f.owner, f.state, f.name, f.expires, c.number, c.hash, c.data"
            " FROM files f LEFT JOIN chunks c ON c.file = f.seq WHERE state <> 'uploading'"
            " ORDER BY f.id, number"
        ),
        "batches": ask(
            "SELECT b.id, b.key, b.state, b.details, f.id FROM batches b"
            " LEFT JOIN files f ON f.seq = b.input ORDER BY b.id"
        ),
        "lines": ask(
            "SELECT b.id, l.number, l.start, l.custom_id, o.data FROM lines l"
            " JOIN batches b ON b.seq = l.batch"
            " LEFT JOIN outcomes o ON o.batch = l.batch AND o.number = l.number"
            " ORDER BY b.id, l.number"
        ),
        "conversations": ask(
            "SELECT c.id, c.title, c.size, h.id, x.item FROM conversations c"
            " LEFT JOIN entries h ON h.seq = c.head"
            " LEFT JOIN hidden x ON x.conversation = c.seq ORDER BY c.id"
        ),
        "entries": ask(
            "SELECT c.id, e.id, e.item, e.basis, p.id FROM entries e"
            " JOIN conversations c ON c.seq = e.conversation"
            " LEFT JOIN entries p ON p.seq = e.parent ORDER BY c.id, e.id"
        ),
        "sessions": ask("SELECT hash, owner, bound, created, expires FROM sessions ORDER BY hash"),
    }


def test_all_arrives_and_a_second_time_nothing_does(two: tuple[Side, Side]) -> None:
    source, target = two
    target.change(lambda db: _file(db, "theirs"))  # numbers are taken there
    told: list[int] = []
    done = transfer_objects(source, target, told.append)
    assert (done.copied, done.there, done.problems) == (ALL - 1, 0, [])
    assert sum(told) == count(source) == ALL
    theirs = ("theirs", "ann", "ready", "n", None, None, None, None)
    found = shown(target)
    found["files"].remove(theirs)
    assert found == shown(source)
    again = transfer_objects(source, target)
    assert (again.copied, again.there, again.problems) == (0, ALL - 1, [])
    owners = {row[0] for row in target.rows("SELECT server FROM batches", ())}
    assert owners in ({None}, {0})


def test_what_was_interrupted_goes_on(two: tuple[Side, Side]) -> None:
    source, target = two
    for most in range(ALL + 1):
        left = iter(range(most))

        def stop(_: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            transfer_objects(source, target, stop)
    assert shown(target) == shown(source)


class Interrupted:
    """A side whose transactions end before their commit."""

    def __init__(self, side: Side) -> None:
        self.rows = side.rows
        self._side = side

    def change(self, change: Callable[[Database], Any]) -> Any:
        def cut_off(db: Database) -> None:
            change(db)
            raise KeyboardInterrupt

        return self._side.change(cut_off)


def test_half_an_object_is_never_there(two: tuple[Side, Side]) -> None:
    source, target = two
    with pytest.raises(KeyboardInterrupt):
        transfer_objects(source, Interrupted(target))
    assert not any(shown(target).values())
    transfer_objects(source, target)
    assert shown(target) == shown(source)


class Changing:
    """A side in which what was written is another thing when it is read."""

    def __init__(self, side: Side, sql: str) -> None:
        self.rows = side.rows
        self._side, self._sql = side, sql

    def change(self, change: Callable[[Database], Any]) -> Any:
        def changed(db: Database) -> Any:
            class Changed:
                def __getattr__(self, name: str) -> Any:
                    return getattr(db, name)

                @staticmethod
                def rows(text: str, values: Any) -> Any:
                    if text.startswith("SELECT number, hash"):
                        db.run(outer._sql)
                    return db.rows(text, values)

            return change(Changed())  # type: ignore[arg-type]

        outer = self
        return self._side.change(changed)


def test_a_copy_that_differs_is_not_kept_and_named(two: tuple[Side, Side]) -> None:
    source, target = two
    harmed = Changing(target, "UPDATE chunks SET data = hash WHERE number = 39")
    done = transfer_objects(source, harmed)
    assert [one.id for one in done.problems] == ["file-1", "batch-1"]  # which reads it
    assert "changed while it was copied" in done.problems[0].message
    assert not target.rows("SELECT 1 FROM files WHERE id = 'file-1'", ())
    assert done.copied == ALL - 3


def test_a_key_that_is_taken_there_leaves_that_batch_out(two: tuple[Side, Side]) -> None:
    source, target = two
    target.change(lambda db: _batch(db, "theirs", 0, key="k"))
    done = transfer_objects(source, target)
    assert [one.id for one in done.problems] == ["batch-1"]
    assert done.copied == ALL - 2


def test_a_folder_without_objects_is_none_and_a_wrong_file_is_an_error(tmp_path: Path) -> None:
    with sqlite_side(tmp_path, write=False) as found:
        assert found is None
    (tmp_path / "objects.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError), sqlite_side(tmp_path, write=False):
        pass
