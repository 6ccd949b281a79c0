"""What is asked of a real server is analysed, and found by its meaning: with it, and without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llcuda_net import sync
from tests.support.processes import run, running_server, wait_until

#: First phrasings of entries of the demonstration model's corpus, and other words for them.
ASKED = {
    "What is llcuda?": "can somebody tell me what that thing named llcuda is?",
    "What is a slot?": "explain slots to me",
    "What is a token?": "tokens, what are those?",
    "What is quantisation?": "why are weights quantised?",
}


def _caught_up(client: sync.Client, count: int) -> None:
    def done() -> bool:
        analysis = client.status()["analysis"]
        return bool(analysis["backlog"] == 0 and analysis["indexed"] == count)

    wait_until(done, "all is analysed")


def _found(folder: Path, text: str, *arguments: str) -> list[dict[str, Any]]:
    words = ("results", "search", "--semantic", text, "--json", "--data-dir", str(folder))
    done = run("main", *words, *arguments)
    assert done.returncode == 0, done.stderr
    assert "not found yet" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with some answers, analysed by the server after the one that was killed."""
    folder = tmp_path_factory.mktemp("data")
    with running_server("--data-dir", str(folder), LLCUDA_ANALYSIS="true") as server:
        with sync.connect(server.address) as client:
            for question in ASKED:
                client.complete(question, temperature=0, n_predict=120, n_probs=4)
        server.process.kill()
        server.process.wait()
    with running_server("--data-dir", str(folder), LLCUDA_ANALYSIS="true") as server:
        with sync.connect(server.address) as client:
            _caught_up(client, len(ASKED))
            for question, others in ASKED.items():
                best = client.search(others, 2)
                assert len(best) == 2
                assert best[0].preview == question
                assert best[0].text
                assert best[0].score > best[1].score
                (hit, *_) = _found(folder, others, "--limit", "1")
                assert hit["id"] == best[0].id
                assert hit["score"] == pytest.approx(best[0].score, abs=1e-6)
        server.process.kill()
        server.process.wait()
    return folder


def test_without_a_server_the_engine_is_started_for_it(folder: Path) -> None:
    (first, second) = _found(folder, "explain slots to me", "--limit", "2")
    assert first["preview"] == "What is a slot?"
    assert first["score"] > second["score"]


def test_the_next_server_has_nothing_left_to_do(folder: Path) -> None:
    with (
        running_server("--data-dir", str(folder), LLCUDA_ANALYSIS="true") as server,
        sync.connect(server.address) as client,
    ):
        _caught_up(client, len(ASKED))
        assert client.search("tokens, what are those?", 1)[0].preview == "What is a token?"


def test_show_says_how_sure_the_model_was(folder: Path) -> None:
    listed = run("main", "results", "list", "--json", "--data-dir", str(folder))
    for line in listed.stdout.splitlines():
        id_ = json.loads(line)["id"]
        shown = run("main", "results", "show", id_, "--json", "--data-dir", str(folder))
        certainty = json.loads(shown.stdout)["certainty"]
        assert certainty["perplexity"] >= 1
        assert certainty["tokens"] > 5


def test_a_server_that_analyses_nothing_says_so(tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path), "--no-analysis")
    with running_server(*arguments) as server:
        with sync.connect(server.address) as client:
            client.complete("What is a slot?", n_predict=4)
            assert "analysis" not in client.status()
        words = ("results", "search", "--semantic", "slots", "--data-dir", str(tmp_path))
        done = run("main", *words)
        assert done.returncode == 1
        assert "--no-analysis" in done.stderr
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "numpy" not in maps
        assert "llvmlite" not in maps
