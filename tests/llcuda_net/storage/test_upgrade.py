"""A data directory of commit 911ff37 is brought up to date where it is, and whatever happens to it.

tests/data/data_directory_911ff37.zip was made by tools/make_earlier_directory.py, which says how.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import llcuda_net.sync
from llcuda_net.cli.main import main
from llcuda_net.errors import StorageError
from llcuda_net.storage.results import migrations, sqlite
from llcuda_net.storage.results.connection import connect
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
from tests.support.processes import environment, running_server

ARCHIVE = Path(__file__).resolve().parents[2] / "data" / "data_directory_911ff37.zip"
USERS = {"ann": "tokenofann1234567890", "bob": "tokenofbob1234567890"}
#: Keys that results have had since.
LATER: dict[str, Any] = {"reasoning": None, "tool_calls": [], "switches": []}
#: The version of results.db then.
BEFORE = 1


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def expected(unpacked: Path) -> dict[str, Any]:
    """What the commands of that version printed, and what clients had of what was cut."""
    found: dict[str, Any] = json.loads((unpacked / "expected.json").read_text("utf-8"))
    return found


@pytest.fixture
def directory(unpacked: Path, tmp_path: Path) -> Path:
    """As the kill left it."""
    return shutil.copytree(unpacked / "data", tmp_path / "data")


@pytest.fixture(scope="module")
def served(
    unpacked: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str], str]:
    """The directory after a server of today: that, the texts of what was cut, and its log."""
    folder = tmp_path_factory.mktemp("served")
    directory = shutil.copytree(unpacked / "data", folder / "data")
    tokens = folder / "tokens"
    tokens.write_text("".join(f"{token} name={name}\n" for name, token in USERS.items()))
    tokens.chmod(0o600)
    texts = {}
    with running_server(
        *("--auth-token-file", str(tokens), "--slots", "2"), LLCUDA_DATA_DIR=str(directory)
    ) as server:
        for name, user in (("plain", "ann"), ("chat", "bob"), ("waiting", "ann")):
            with (
                llcuda_net.sync.connect(server.address, token=USERS[user]) as client,
                client.attach(expected["cut"][name]["id"], 0) as stream,
            ):
                texts[name] = "".join(stream)
        assert server.stop() == 0
        log = server.log()
    store = SqliteStore(directory, write=True)
    while store.update_index():
        pass
    store.close()
    return directory, texts, log


def test_what_was_cut_is_continued(
    served: tuple[Path, dict[str, str], str], expected: dict[str, Any]
) -> None:
    directory, texts, _ = served
    with closing(SqliteStore(directory)) as store:
        for name, cut in expected["cut"].items():
            assert texts[name].startswith("".join(cut["pieces"]))
            result = store.get(cut["id"])
            assert result is not None
            assert (result.state, result.text) == ("done", texts[name])
            assert result.log.pieces[: len(cut["pieces"])] == cut["pieces"]
            tokens = 16 if name == "waiting" else 1500
            assert result.usage["completion_tokens"] in (tokens, tokens - 1)
            splices = [splice.position for splice in result.continuations]
            assert bool(splices) == (name != "waiting")
            assert all(position >= len(cut["pieces"]) for position in splices)
        chat = store.get(expected["cut"]["chat"]["id"])
        assert chat is not None
        assert chat.log.logprobs is not None
        assert chat.owner == "bob"
        assert len(chat.log.logprobs) == len(chat.log.pieces)


def test_every_result_is_as_it_was(
    served: tuple[Path, dict[str, str], str],
    expected: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = served[0]
    cut = {one["id"] for one in expected["cut"].values()}

    def printed(*arguments: str) -> list[Any]:
        assert main(["results", *arguments, "--data-dir", str(directory), "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def kept(found: list[Any]) -> list[Any]:
        return [one for one in found if one["id"] not in cut]

    assert kept(printed("list")) == expected["list"]
    assert kept(printed("export")) == [one | LATER for one in expected["export"]]
    for before in expected["show"]:
        (shown,) = printed("show", before["id"])
        certainty = before["certainty"] and {**before["certainty"], "unknown": 0}
        assert shown == before | LATER | {"certainty": certainty}
    for word, ids in expected["search"].items():
        assert [one["id"] for one in kept(printed("search", word))] == ids
    assert printed("verify")[0]["ok"]
    (stats,) = printed("stats")
    assert stats["results"] == len(expected["list"]) + len(cut)
    assert stats["unindexed"] == 0
    states = expected["stats"][0]["states"]
    assert stats["states"] == {**states, "done": states["done"] + len(cut)}


def test_the_embeddings_are_kept(served: tuple[Path, dict[str, str], str]) -> None:
    with closing(SqliteStore(served[0])) as store:
        (space,) = store.analyses.spaces()
        embedded = sum(len(page) for page in store.analyses.embeddings(space.id))
        assert embedded == sum(1 for one in store.find(Query(limit=None)) if one.tokens) - 3


def test_one_line_is_logged(served: tuple[Path, dict[str, str], str]) -> None:
    lines = [line for line in served[2].splitlines() if "store_" in line]
    assert len(lines) == 1, lines
    assert "store_updated" in lines[0]
    assert RESULTS in lines[0]
    assert f'"before": {BEFORE}' in lines[0] or f"before={BEFORE}" in lines[0]


# -- whatever happens meanwhile ---------------------------------------------------------------


def version(directory: Path) -> int:
    with closing(connect(directory / RESULTS, write=False)) as db:
        return migrations.version(db)


def all_of(directory: Path) -> list[Any]:
    with closing(SqliteStore(directory)) as store:
        return [one.text for one in store.export(Query(limit=None))]


#: Kills itself at a statement of the migration of results.db.
_KILLED = """
import os, signal, sys
from pathlib import Path
import apsw
from llcuda_net.storage.results.sqlite import RESULTS, SqliteStore
left = int(sys.argv[2])
def trace(cursor, sql, bindings):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
def hook(connection):
    if connection.filename.endswith(RESULTS):
        connection.exec_trace = trace
apsw.connection_hooks.append(hook)
SqliteStore(Path(sys.argv[1]), write=True)
print("done", left)
"""


def test_killed_at_any_statement_it_is_as_before_or_done(directory: Path, tmp_path: Path) -> None:
    texts = all_of(shutil.copytree(directory, tmp_path / "compared"))
    versions, at = [], 9
    while True:
        copy = shutil.copytree(directory, tmp_path / str(at))
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(copy), str(at)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        versions.append(version(copy))
        assert all_of(copy) == texts
        SqliteStore(copy, write=True).close()  # the next start goes on
        assert version(copy) == migrations.MAIN[-1].number
        assert all_of(copy) == texts
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        at += 9
    assert versions[0] == BEFORE
    assert versions[-1] == migrations.MAIN[-1].number
    assert {*versions} == {BEFORE, migrations.MAIN[-1].number}
    assert len(versions) > 3


@pytest.mark.parametrize("pages", [0, 1])
def test_a_full_disk_leaves_the_version_before(
    directory: Path, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **options: Any) -> apsw.Connection:
        db = connect(path, **options)
        if path.name == RESULTS:
            size = db.execute("PRAGMA page_count").get
            db.execute(f"PRAGMA max_page_count = {size + pages}")
        return db

    texts = all_of(directory)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "connect", full)
        with pytest.raises(StorageError, match="there is no room") as caught:
            SqliteStore(directory, write=True)
    assert caught.value.code == StorageError.FULL
    assert version(directory) == BEFORE
    assert all_of(directory) == texts
    SqliteStore(directory, write=True).close()
    assert version(directory) == migrations.MAIN[-1].number
    assert all_of(directory) == texts


def test_a_backup_of_it_is_of_the_same_version(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not brought up to date by being copied."""
    texts = all_of(directory)
    copy, back = str(tmp_path / "copy"), tmp_path / "back"
    assert main(["store", "backup", copy, "--data-dir", str(directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] == 3
    assert version(directory) == BEFORE
    assert main(["store", "restore", copy, "--data-dir", str(back)]) == 0
    assert version(back) == BEFORE
    assert all_of(back) == texts
