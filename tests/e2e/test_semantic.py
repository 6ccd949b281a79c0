"""What is asked of a real server is analysed, and found by its meaning: with it, and without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llcuda_net import sync
from llcuda_protocol import Done, Hits, Search, Welcome
from tests.support.processes import RunningServer, run, running_server, wait_until
from tests.support.raw_client import connected

#: Tokens are names here.
TOKENS = "ann name=ann\nbob name=bob\nroot name=root role=admin\n"

#: First phrasings of entries of the demonstration model's corpus, and other words for them.
ASKED = {
    "What is llcuda?": "can somebody tell me what that thing named llcuda is?",
    "What is a slot?": "explain slots to me",
    "What is a token?": "tokens, what are those?",
    "What is quantisation?": "why are weights quantised?",
}
NOT_NICE = Path(__file__).resolve().parents[1] / "support" / "not_nice"
#: Kernels that are not cached are compiled first.
COMPILING = 300.0
#: Who asks what.
OWNERS = dict(zip(ASKED, ("ann", "ann", "bob", "root"), strict=True))


def _caught_up(client: sync.Client, count: int) -> None:
    def done() -> bool:
        analysis = client.status()["analysis"]
        return bool(analysis["backlog"] == 0 and analysis["indexed"] == count)

    wait_until(done, "all is analysed", COMPILING)


def _found(folder: Path, text: str, *arguments: str) -> list[dict[str, Any]]:
    words = ("results", "search", "--semantic", text, "--json", "--data-dir", str(folder))
    done = run("main", *words, *arguments, env={"LLCUDA_TOKEN": "root"})
    assert done.returncode == 0, done.stderr
    assert "not found yet" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Searched(NamedTuple):
    """A server whose answers are all analysed, and its data directory as another one left it."""

    server: RunningServer
    live: Path
    left: Path


def _asked(server: RunningServer, folder: Path) -> None:
    """Every question, of a server that analyses nothing and says so."""
    for question, owner in OWNERS.items():
        with sync.connect(server.address, token=owner) as client:
            client.complete(question, temperature=0, n_predict=120, n_probs=4)
            assert "analysis" not in client.status()
    words = ("results", "search", "--semantic", "slots", "--data-dir", str(folder))
    done = run("main", *words, env={"LLCUDA_TOKEN": "root"})
    assert done.returncode == 1
    assert "--no-analysis" in done.stderr
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "numpy" not in maps
    assert "llvmlite" not in maps


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """Answers of a server that was killed, analysed by the next one, which was killed, too."""
    root = tmp_path_factory.mktemp("semantic")
    folder, left = root / "data", root / "left"
    (root / "tokens").write_text(TOKENS)
    arguments = ("--data-dir", str(folder), "--auth-token-file", str(root / "tokens"))
    with running_server(*arguments, "--no-analysis") as server:
        _asked(server, folder)
        server.process.kill()
        server.process.wait()
    with running_server(*arguments, "--analysis", PYTHONPATH=str(NOT_NICE)) as server:
        with sync.connect(server.address, token="root") as client:
            _caught_up(client, len(ASKED))
        server.process.kill()
        server.process.wait()
    shutil.copytree(folder, left)
    with running_server(*arguments, "--analysis", PYTHONPATH=str(NOT_NICE)) as server:
        with sync.connect(server.address, token="root") as client:
            _caught_up(client, len(ASKED))
        yield Searched(server, folder, left)


def test_other_words_find_it(searched: Searched) -> None:
    with sync.connect(searched.server.address, token="root") as client:
        for question, others in ASKED.items():
            best = client.search(others, 2)
            assert len(best) == 2
            assert best[0].preview == question
            assert best[0].text
            assert best[0].score > best[1].score
    (hit, *_) = _found(searched.live, others, "--limit", "1")
    assert hit["id"] == best[0].id
    assert hit["score"] == pytest.approx(best[0].score, abs=1e-6)


def test_a_user_searches_what_is_theirs_and_an_admin_all(searched: Searched) -> None:
    for name in ("ann", "bob", "root"):
        theirs = {question for question, owner in OWNERS.items() if name in (owner, "root")}
        with connected(searched.server.port, greet=False) as client:
            assert isinstance(client.greet(name), Welcome)
            client.send(Search(1, "explain slots to me", 9))
            hits: list[dict[str, Any]] = []
            while not isinstance(event := client.next(), Done):
                assert isinstance(event, Hits), event
                hits += event.hits
        assert {hit["preview"] for hit in hits} == theirs
        assert event.usage["searched"] == len(theirs) == len(hits)


def test_without_a_server_the_engine_is_started_for_it(searched: Searched) -> None:
    (first, second) = _found(searched.left, "explain slots to me", "--limit", "2")
    assert first["preview"] == "What is a slot?"
    assert first["score"] > second["score"]


def test_show_says_how_sure_the_model_was(searched: Searched) -> None:
    listed = run("main", "results", "list", "--json", "--data-dir", str(searched.left))
    lines = listed.stdout.splitlines()
    assert len(lines) == len(ASKED)
    for line in lines[:2]:
        id_ = json.loads(line)["id"]
        shown = run("main", "results", "show", id_, "--json", "--data-dir", str(searched.left))
        certainty = json.loads(shown.stdout)["certainty"]
        assert certainty["perplexity"] >= 1
        assert certainty["tokens"] > 5
