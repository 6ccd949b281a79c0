"""A data directory that an earlier version wrote is read, and its server's work continued.

tests/data/data_directory_0.1.0.zip was written by the server with the demonstration model: five
results, analysed, among them a conversation with long messages, one with log-probabilities and a
cancelled one. Then the server was killed with -9 three pieces into a sixth generation. The archive
also holds what `llcuda results … --json` of that version printed.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import llcuda_net.sync
from llcuda_net.cli.main import main
from llcuda_net.storage.journal import recovery
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.processes import running_server

ARCHIVE = Path(__file__).resolve().parents[2] / "data" / "data_directory_0.1.0.zip"
PIECES = ["Q", "u", "ant"]
#: Keys that results have had since.
LATER: dict[str, Any] = {"reasoning": None, "tool_calls": [], "switches": []}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The data directory, as the kill left it."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def expected(directory: Path) -> dict[str, Any]:
    """What the commands of that version printed."""
    found: dict[str, Any] = json.loads((directory.parent / "expected.json").read_text("utf-8"))
    return found


def test_the_commands_print_what_they_printed(
    directory: Path, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> list[Any]:
        assert main(["results", *arguments, "--data-dir", str(directory)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    # Its index is made again by a server; until then nothing is found, and a note says so.
    (stats,) = printed("stats", "--json")
    assert stats["unindexed"] == len(expected["list"])
    store = SqliteStore(directory, write=True)
    while store.update_index():
        pass
    store.close()
    capsys.readouterr()  # it has logged that it closed the files to others
    certainty = expected["certainty"]
    assert printed("list", "--json") == expected["list"]
    for result in expected["export"]:
        id_ = result["id"]
        figures = certainty[id_] and {**certainty[id_], "unknown": 0}  # a key since then
        assert printed("show", id_, "--json") == [result | LATER | {"certainty": figures}]
    for hit, before in zip(printed("search", "token", "--json"), expected["search"], strict=True):
        for name in ("prompt", "text"):  # excerpts are as long as they are now
            assert "token" in hit[name].pop("excerpt")
            assert bool(hit.pop(name)["highlights"]) == bool(before.pop(name)["highlights"])
        assert hit.pop("of_newest") is None  # a key since then
        assert hit == before
    assert printed("export") == [result | LATER for result in expected["export"]]
    assert printed("verify", "--json") == [expected["verify"]]
    (stats,) = printed("stats", "--json")
    del stats["bytes"]
    assert stats == expected["stats"]


def test_the_analyses_are_still_there(directory: Path) -> None:
    store = SqliteStore(directory, write=True)
    while store.update_index():
        pass
    analyses = store.analyses
    (space,) = analyses.spaces()
    assert sum(len(page) for page in analyses.embeddings(space.id)) == 5
    assert analyses.lag(space.seq) == store.search_index.lag() == 0
    with_probabilities = [r.id for r in store.export(Query()) if r.log.logprobs is not None]
    assert [analyses.certainty(id_) is not None for id_ in with_probabilities] == [True]
    store.close()


def test_the_journal_is_read(directory: Path) -> None:
    found = recovery.read(directory / "journal", RealFiles())
    (generation,) = found.generations
    assert found.problems == []
    assert generation.log.pieces == PIECES
    assert generation.opened.key == "interrupted"
    assert generation.dispatched is not None
    assert generation.ended is None


def test_a_server_continues_what_the_kill_interrupted(
    directory: Path, expected: dict[str, Any]
) -> None:
    (interrupted,) = recovery.read(directory / "journal", RealFiles()).generations
    with running_server("--slots", "1", LLCUDA_DATA_DIR=str(directory)) as server:
        with (
            llcuda_net.sync.connect(server.address) as client,
            client.attach(interrupted.id, 0) as stream,
        ):
            text = "".join(stream)
        assert stream.result.reason == "stop"
        assert server.stop() == 0
    assert text.startswith("".join(PIECES))
    store = SqliteStore(directory)
    newest, *others = store.find(Query())
    assert (newest.id, newest.state) == (interrupted.id, "done")
    assert [summary.id for summary in others] == [one["id"] for one in expected["list"]]
    result = store.get(interrupted.id)
    assert result is not None
    assert result.text == text
    assert result.log.pieces[: len(PIECES)] == PIECES
    assert [splice.position for splice in result.continuations] == [len(PIECES)]
    assert [problem for problem in store.verify() if problem] == []
    store.close()
