"""What survives a server: real processes, killed with -9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llcuda_protocol import Accepted, Attach, Done, Tokens
from tests.support.processes import run, running_server
from tests.support.raw_client import CREDIT, RawClient, ask, connected
from tests.support.steady import held_upstream, release
from tools import synthetic_upstream
from tools.synthetic.tokens import generation


def _results(folder: Path) -> list[dict[str, object]]:
    listed = run("main", "results", "list", "--json", "--data-dir", str(folder))
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def _shown(folder: Path, id_: object) -> dict[str, Any]:
    shown = run("main", "results", "show", str(id_), "--json", "--data-dir", str(folder))
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def _read(client: RawClient, count: int) -> tuple[Accepted, list[str]]:
    """The first pieces of a generation."""
    seen: list[str] = []
    accepted = None
    while len(seen) < count:
        event = client.next()
        if isinstance(event, Accepted):
            accepted = event
        elif isinstance(event, Tokens):
            seen += event.pieces
    assert accepted is not None
    return accepted, seen


def test_a_killed_server_goes_on_with_the_same_stream(tmp_path: Path) -> None:
    prompt = "tell me a story"
    with held_upstream(100) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask(prompt, n_predict=8))
            client.until(Done)
            client.send(ask(prompt, 2, n_predict=400))
            begun, seen = _read(client, 40)
            server.process.kill()
            server.process.wait()
        release(upstream)
        with running_server(*arguments) as server, connected(server.port) as client:
            first = len(seen)
            client.send(Attach(1, begun.id, CREDIT, first=first, epoch=begun.epoch))
            rest, done = client.until(Done)
        assert "".join(seen + rest) == generation(prompt, 400)
        (splice,) = done.splices
        assert first <= splice < 400
        found = {entry["id"]: entry for entry in _results(tmp_path)}
        assert len(found) == 2
        shown = _shown(tmp_path, begun.id)
        assert shown["state"] == "done"
        assert shown["text"] == generation(prompt, 400)
        assert shown["usage"]["completion_tokens"] == 400
        assert [entry["position"] for entry in shown["splices"]] == [splice]


def test_what_cannot_be_continued_is_run_again(tmp_path: Path) -> None:
    prompt = "tell me another"
    with held_upstream(100) as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask(prompt, n_predict=400, mirostat=2))
            begun, seen = _read(client, 40)
            server.process.kill()
            server.process.wait()
        release(upstream)
        with running_server(*arguments) as server, connected(server.port) as client:
            first = len(seen)
            client.send(Attach(1, begun.id, CREDIT, first=first, epoch=begun.epoch))
            rest, done = client.until(Done)
        assert "".join(seen + rest) == generation(prompt, 400)
        assert done.usage["completion_tokens"] == 400
        shown = _shown(tmp_path, begun.id)
        assert (shown["state"], shown["text"]) == ("done", generation(prompt, 400))


def test_the_second_server_on_a_folder_refuses_and_says_who_has_it(tmp_path: Path) -> None:
    with synthetic_upstream.running() as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        with running_server(*arguments) as first:
            second = run("server", "--port", "0", *arguments, env={"LLCUDA_STORE": "sqlite"})
            assert second.returncode == 1
            assert str(first.process.pid) in second.stderr
            assert second.stderr.count("\n") == 1


def test_nothing_is_stored_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with synthetic_upstream.running("--rate", "0") as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(folder), "--store", "none")
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask("hello", n_predict=4))
            client.until(Done)
    assert not folder.exists()
