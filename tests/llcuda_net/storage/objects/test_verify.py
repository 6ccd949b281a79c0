"""What `llcuda results verify` finds in objects.db."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.database import NAME, SqliteDatabase
from llcuda_net.storage.objects.files import CHUNK
from llcuda_net.storage.objects.interface import Database
from llcuda_net.storage.objects.migrations import OBJECTS
from llcuda_net.storage.objects.verify import parts, problems
from llcuda_net.storage.results.connection import connect
from llcuda_net.storage.results.migrations import migrate
from tests.support.storage.damage import damaged_file


def filled(folder: Path) -> apsw.Connection:
    """objects.db with something in it."""
    connection = connect(folder / NAME, create=True)
    migrate(connection, OBJECTS)
    fill(SqliteDatabase(connection))
    return connection


def fill(db: Database) -> None:
    """A file of three chunks, and a batch with two outcomes."""
    seq = files.begin(db, "file-1", "ann", 1)
    files.append(db, seq, 0, [b"a" * CHUNK, b"b" * CHUNK, b"c"])
    file = files.finish(db, seq, purpose="batch", name="x", expires=None)
    details = batches.Details("24h")
    batch = batches.create(
        db, "batch_1", file, owner="ann", endpoint="", details=details, created=1, expires=2
    )
    batches.record(db, batch.seq, [batches.Outcome(n, False, b"{}") for n in range(2)])


def test_what_is_sound_is_counted(tmp_path: Path) -> None:
    assert list(problems(tmp_path)) == []
    filled(tmp_path).close()
    assert list(problems(tmp_path)) == [None] * 5


def test_each_damaged_part_is_named(tmp_path: Path) -> None:
    db = filled(tmp_path)
    db.execute("UPDATE chunks SET data = x'00' WHERE number = 1")
    db.execute("UPDATE outcomes SET data = x'00' WHERE number = 0")
    db.close()
    found = [one.message for one in problems(tmp_path) if one is not None]
    assert found == [
        "objects.db: part 1 of file-1 is damaged",
        "objects.db: what came of line 1 of batch_1 is damaged",
    ]


def test_damage_in_either_database_is_named(db: Database) -> None:
    fill(db)
    assert [*parts(db.rows, "here")] == [None] * 5
    db.run("UPDATE chunks SET data = ? WHERE number = 2", (b"",))
    db.run("UPDATE outcomes SET data = ? WHERE number = 1", (b"",))
    assert [one.message for one in parts(db.rows, "here") if one is not None] == [
        "here: part 2 of file-1 is damaged",
        "here: what came of line 2 of batch_1 is damaged",
    ]


def test_whatever_is_damaged_is_told_and_is_no_other_error(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / NAME
    whole = path.read_bytes()
    told = 0
    for seed in range(40):
        path.write_bytes(damaged_file(whole, seed))
        try:
            told += any(one is not None for one in problems(tmp_path))
        except StorageError:
            told += 1
        for rest in tmp_path.glob(f"{NAME}-*"):
            rest.unlink()
    assert told > 30


def test_a_file_of_a_newer_version_is_not_looked_into(tmp_path: Path) -> None:
    db = filled(tmp_path)
    db.execute("INSERT INTO migrations VALUES (?, 'later', 0)", (len(OBJECTS) + 1,))
    db.close()
    with pytest.raises(StorageError, match="upgrade llcuda"):
        list(problems(tmp_path))
