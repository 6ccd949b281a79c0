"""What survives a server: real processes, killed with -9."""

from __future__ import annotations

import json
from pathlib import Path

from llcuda_protocol import Done, Tokens
from tests.e2e.processes import run, running_server
from tests.e2e.raw_client import ask, connected
from tools import synthetic_upstream
from tools.synthetic.tokens import generation


def _results(folder: Path) -> list[dict[str, object]]:
    listed = run("main", "results", "list", "--json", "--data-dir", str(folder))
    assert listed.returncode == 0, listed.stderr
    return [json.loads(line) for line in listed.stdout.splitlines()]


def test_a_killed_server_keeps_every_token_that_a_client_had(tmp_path: Path) -> None:
    prompt = "tell me a story"
    with synthetic_upstream.running("--rate", "200") as upstream:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path))
        with running_server(*arguments) as server, connected(server.port) as client:
            client.send(ask(prompt, n_predict=8))
            whole, _ = client.until(Done)
            client.send(ask(prompt, 2, n_predict=2000))
            seen: list[str] = []
            while len(seen) < 40:
                event = client.next()
                if isinstance(event, Tokens):
                    seen += event.pieces
            server.process.kill()
            server.process.wait()
        with running_server(*arguments):
            found = _results(tmp_path)
            assert sorted(str(entry["state"]) for entry in found) == ["done", "interrupted"]
            for entry in found:
                shown = run(
                    "main",
                    "results",
                    "show",
                    str(entry["id"]),
                    "--json",
                    "--data-dir",
                    str(tmp_path),
                )
                assert shown.returncode == 0, shown.stderr
                text = json.loads(shown.stdout)["text"]
                if entry["state"] == "done":
                    assert text == "".join(whole)
                else:
                    assert text.startswith("".join(seen))
                    assert generation(prompt, 2000).startswith(text)


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
