"""What is SQLite's own: versions, two files, damage, and many processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.results import migrations, search_index
from llcuda_net.storage.results.connection import connect
from llcuda_net.storage.results.interface import Query, Retention
from llcuda_net.storage.results.migrations import Migration
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS, SqliteStore
from tests.support.storage.records import result

ROOT = Path(__file__).resolve().parents[4]
NEXT = Migration(
    len(migrations.MAIN) + 1,
    "a synthetic next version",
    "ALTER TABLE results ADD COLUMN note TEXT; CREATE INDEX results_note ON results (note);",
)


#: What takes each migration back.
UNDO = {
    2: "ALTER TABLE results DROP COLUMN beginning; ALTER TABLE results DROP COLUMN seal",
    3: """
        CREATE INDEX results_model ON results (model, created);
        CREATE INDEX results_owner ON results (owner, created) WHERE owner != '';
        CREATE INDEX results_state ON results (state, created) WHERE state != 'done';
        DROP INDEX results_cache;
        CREATE INDEX results_cache ON results (request_hash, model) WHERE cacheable = 1;
        DROP INDEX results_listed; DROP INDEX results_owned;
        DROP TRIGGER results_removed;
        DROP TABLE zones; DROP TABLE owner_zones;
    """,
}


def index_all(store: SqliteStore) -> None:
    while store.update_index():
        pass


# -- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", range(len(migrations.MAIN) + 1))
def test_every_earlier_version_is_brought_up_to_date(
    earlier: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From each version there was, to one more than there is."""
    newest = (*migrations.MAIN, NEXT)
    if earlier:
        store = SqliteStore(tmp_path, write=True)
        store.put([result(1)])
        store.close()
        db = apsw.Connection(str(tmp_path / RESULTS))
        for number in range(len(migrations.MAIN), earlier, -1):
            db.execute(UNDO[number])
            db.execute("DELETE FROM migrations WHERE number = ?", (number,))
        db.close()
    monkeypatch.setattr(migrations, "MAIN", newest)
    if earlier:
        reading = SqliteStore(tmp_path)
        assert reading.get("result-000001") == result(1)
        assert [found.id for found in reading.find(Query())] == ["result-000001"]
        reading.close()
    store = SqliteStore(tmp_path, write=True)
    db = apsw.Connection(str(tmp_path / RESULTS))
    assert [row[0] for row in db.execute("SELECT number FROM migrations ORDER BY 1")] == [
        migration.number for migration in newest
    ]
    db.execute("SELECT note FROM results")
    store.put([result(2)])
    expected = ["result-000002", "result-000001"][: 2 if earlier else 1]
    assert [found.id for found in SqliteStore(tmp_path).find(Query())] == expected


def test_a_migration_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(tmp_path, write=True).close()
    bad = Migration(NEXT.number, "bad", NEXT.sql + " SELECT * FROM nowhere;")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MAIN", (*migrations.MAIN, bad))
        with pytest.raises(StorageError):
            SqliteStore(tmp_path, write=True)
    db = apsw.Connection(str(tmp_path / RESULTS))
    assert migrations.version(db) == len(migrations.MAIN)
    columns = {row[1] for row in db.execute("PRAGMA table_info(results)")}
    assert "note" not in columns
    SqliteStore(tmp_path, write=True).put([result(1)])


@pytest.mark.parametrize("write", [True, False])
def test_a_newer_version_is_refused_in_one_line(
    write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MAIN", (*migrations.MAIN, NEXT))
        SqliteStore(tmp_path, write=True).close()
    with pytest.raises(
        StorageError, match=f"version {NEXT.number}, this llcuda knows up to {NEXT.number - 1}"
    ) as caught:
        SqliteStore(tmp_path, write=write)
    assert caught.value.code == StorageError.REFUSED
    assert "\n" not in str(caught.value)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / RESULTS)).execute("CREATE TABLE t (a)")
    with pytest.raises(StorageError, match="something else"):
        SqliteStore(tmp_path, write=True)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="damaged") as caught:
        SqliteStore(tmp_path, write=True)
    assert caught.value.code == StorageError.DAMAGED


def test_reading_where_nothing_was_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no results"):
        SqliteStore(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_sqlite_cannot_write_the_error_says_that_it_must(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1)])
    store.close()
    (tmp_path / f"{RESULTS}-wal").mkdir()  # for root, no mode forbids
    with pytest.raises(StorageError, match="read a copy") as caught:
        SqliteStore(tmp_path)
    assert "\n" not in caught.value.message


# -- contents ---------------------------------------------------------------------------------


def test_large_contents_are_stored_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    long = "A long system prompt, the same for everybody. " * 200
    for n in range(20):
        messages = [{"role": "system", "content": long}, {"role": "user", "content": f"{n}"}]
        store.put([result(n, request={"messages": messages})])
    db = apsw.Connection(str(tmp_path / RESULTS))
    assert db.execute("SELECT count(*), sum(uses), sum(length(data)) < 300 FROM bodies").get == (
        1,
        20,
        1,
    )
    for _ in store.prune(Retention(max_bytes=0)):
        pass
    assert db.execute("SELECT count(*) FROM bodies").get == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE results SET reason = 1",
        "UPDATE results SET state = 'failed'",
        "UPDATE results SET created = created + 1",
        "UPDATE results SET meta = x'00'",
        "UPDATE results SET input = x'0081'",
        "UPDATE results SET log = x'01ffff'",
        "UPDATE results SET log = 999",
        "UPDATE results SET hash = x'00'",
        "UPDATE models SET fingerprint = x'c1'",
        "UPDATE bodies SET data = x'0041'",
        "UPDATE bodies SET data = zeroblob(50)",
        "DELETE FROM bodies",
    ],
)
def test_verify_notices_any_change(change: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, tokens=2000)])
    assert list(store.verify()) == [None, None]
    db = apsw.Connection(str(tmp_path / RESULTS))
    if "reason" in change:
        change = change.replace("reason = 1", "owner = 'x'")
    db.execute(change)
    problems = [problem for problem in store.verify() if problem]
    assert problems
    assert problems[-1].id in ("result-000001", "")
    index_all(store)  # damage must not end the indexing of others


# -- the derived file -------------------------------------------------------------------------


def test_the_cursor_survives_a_kill(tmp_path: Path) -> None:
    """Killed between steps and inside one, indexing goes on: nothing twice, nothing left out."""
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(600)])
    store.close()
    code = (
        "import os, sys, pathlib\n"
        "from llcuda_net.storage.results import search_index, sqlite\n"
        "search_index._STEP_RESULTS = 50\n"
        "store = sqlite.SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(int(sys.argv[2])): store.update_index()\n"
        "read, left = store._reader.result, [20]\n"
        "def dying(seq):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), 9)\n"
        "    return read(seq)\n"
        "store._reader.result = dying\n"
        "while store.update_index(): pass\n"  # a slow machine takes fewer results per step
    )
    for steps in (3, 0, 2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(steps)], cwd=ROOT, check=False
        )
        assert done.returncode == -9
    reading = SqliteStore(tmp_path)
    assert 0 < reading.stats().unindexed < 600
    index_all(reading)
    stats = reading.stats()
    assert (stats.unindexed, stats.days[0].results, stats.tokens) == (0, 600, 4800)
    assert len(reading.search("number", Query(limit=None))) == 600


@pytest.mark.parametrize("how", ["deleted", "damaged", "of another store", "ahead"])
def test_the_derived_file_is_made_again(how: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(10)])
    index_all(store)
    store.close()
    search_index = tmp_path / DERIVED
    if how == "deleted":
        search_index.unlink()
    elif how == "damaged":
        search_index.write_bytes(b"nothing of use" * 1000)
    else:
        change = "store = x'00'" if "another" in how else "seq = 1000"
        apsw.Connection(str(search_index)).execute(f"UPDATE cursor SET {change}")
    store = SqliteStore(tmp_path, write=True)
    assert store.stats().unindexed == 10
    index_all(store)
    assert len(store.search("number", Query())) == 10
    assert store.stats().days[0].results == 10


def test_search_works_while_nothing_was_ever_derived(tmp_path: Path) -> None:
    SqliteStore(tmp_path, write=True).close()
    (tmp_path / DERIVED).unlink()
    reading = SqliteStore(tmp_path)
    assert reading.search("word", Query()) == []
    assert reading.stats().unindexed == 0


# -- beside others ----------------------------------------------------------------------------


def test_readers_cannot_write(tmp_path: Path) -> None:
    SqliteStore(tmp_path, write=True).put([result(1)])
    with pytest.raises(StorageError):
        SqliteStore(tmp_path).put([result(2)])


def test_a_prune_in_another_process_and_commits_here(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    for first in range(0, 3000, 250):
        store.put([result(n) for n in range(first, first + 250)])
    code = (
        "import sys, pathlib\n"
        "from llcuda_net.storage.results.sqlite import SqliteStore\n"
        "from llcuda_net.storage.results.interface import Retention\n"
        "store = SqliteStore(pathlib.Path(sys.argv[1]), write=True)\n"
        "print('ready', flush=True)\n"
        "print(sum(s.results for s in store.prune(Retention(before=int(sys.argv[2])))))\n"
    )
    before = result(2500).created
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(before)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        number = 3000
        while process.poll() is None:
            store.put([result(number)])
            store.checkpoint()
            number += 1
        assert process.stdout.read() == "2500\n"
    assert store.stats().results == number - 2500
    assert [problem for problem in store.verify() if problem] == []


def test_prune_works_in_steps_and_gives_space_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    for first in range(0, 4000, 250):
        store.put([result(n, tokens=60) for n in range(first, first + 250)])
    store.checkpoint()
    steps = list(store.prune(Retention(max_bytes=0)))
    assert len(steps) >= 4000 / 256
    assert max(step.results for step in steps) <= 256
    db = connect(tmp_path / RESULTS)
    assert db.execute("PRAGMA freelist_count").get < 500


def test_ten_thousand_results_are_no_trouble(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    for first in range(0, 10_000, 250):
        store.put([result(n, tokens=4) for n in range(first, first + 250)])
        store.checkpoint()
    index_all(store)
    assert len(store.find(Query(limit=None))) == 10_000
    assert len(store.search("9999", Query())) == 1
    assert store.stats().results == 10_000
    # Every filter is served by an index: none reads the table from end to end.
    for query in ("model = 1 AND created > 5", "owner = 'a' AND owner != ''", "id = 'x'"):
        plan = store._db.execute(f"EXPLAIN QUERY PLAN SELECT id FROM results WHERE {query}").get
        assert "USING INDEX" in plan[3] or "USING COVERING INDEX" in plan[3]


@pytest.mark.parametrize(("version", "table"), [(2, "texts"), (3, "words")])
def test_the_text_of_an_earlier_index_is_indexed_again(
    version: int, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps, while counts and embeddings stay; search says how far it is."""
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(600)])
    index_all(store)
    space = store.analyses.open_space({"name": "demo"}, 2, 1)
    store.analyses.embed(space.id, 7, [(7, 0.5, b"\1\2")])
    store.close()
    db = apsw.Connection(str(tmp_path / DERIVED))
    if version == 2:
        db.execute(
            "DROP TABLE lost; ALTER TABLE cursor DROP COLUMN indexed;"
            " ALTER TABLE figures DROP COLUMN hash; ALTER TABLE embeddings DROP COLUMN hash"
        )
    schema = ";".join(migration.sql for migration in migrations.DERIVED)
    (create,) = [sql for sql in schema.split(";") if f"VIRTUAL TABLE {table} " in sql]
    db.execute(create)
    db.execute("DROP TABLE terms")
    db.execute("DELETE FROM migrations WHERE number > ?", (version,))
    for n in range(600):
        text = f"old {n} " * 50
        db.execute(f"INSERT INTO {table} (rowid, text) VALUES (?, ?)", (n + 1, text))
    db.close()
    monkeypatch.setattr(search_index, "_OLD_ROWS", 2)
    monkeypatch.setattr(search_index, "_STEP_RESULTS", 100)

    reading = SqliteStore(tmp_path)  # before a server has started
    assert reading.search("number", Query()) == []
    assert (reading.stats().unindexed, reading.stats().days[0].results) == (600, 600)
    assert reading.analyses.spaces() == []
    store = SqliteStore(tmp_path, write=True)
    assert store.stats().unindexed == 600
    assert store.update_index()
    found = len(reading.search("number", Query(limit=None)))
    assert 0 < found <= 100
    assert reading.search_index.lag() == 600 - found
    steps = 1
    while store.update_index():
        steps += 1
    assert steps > 600 / 100 + 10
    assert len(reading.search("number", Query(limit=None))) == 600
    stats = reading.stats()
    assert (stats.unindexed, stats.days[0].results, stats.tokens) == (0, 600, 4800)
    assert reading.analyses.spaces()[0].seq == 7
    assert [one.seq for page in reading.analyses.embeddings(space.id) for one in page] == [7]
    db = apsw.Connection(str(tmp_path / DERIVED))
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'texts%'").get == 0
    assert db.execute("PRAGMA integrity_check").get == "ok"
