"""Models on demand with real processes: loaded by hand and by requests, seen by clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import RunningServer, run, running_server, wait_until
from tests.support.upstream.tiny_model import write_tiny_model


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of two models, of which none is loaded at the start."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one", "two"):
        write_tiny_model(folder / f"{name}.gguf")
    with running_server("--models", str(folder), "--slots", "1", "--ctx", "256") as found:
        yield found


def _models(server: RunningServer) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/models", timeout=60)
    return {one["id"]: one for one in answer.json()["data"]}


def test_loaded_and_unloaded_from_the_command_line(server: RunningServer) -> None:
    address = server.address
    assert {name: one["state"] for name, one in _models(server).items()} == {
        "one": "unloaded",
        "two": "unloaded",
    }
    done = run("main", "models", "load", "--server", address, "one")
    assert (done.returncode, done.stdout.startswith("one is loaded")) == (0, True), done.stderr
    assert {name: one["state"] for name, one in _models(server).items()} == {
        "one": "loaded",
        "two": "unloaded",
    }
    done = run("main", "models", "load", "--server", address, "--json", "one", "two", "nobody")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["model"], one["event"]) for one in events] == [
        ("one", "loaded"),
        ("two", "loaded"),
        ("nobody", "failed"),
    ]
    assert events[2]["message"] == "there is no model 'nobody'; there are: one, two"
    assert (done.returncode, "1 of 3 failed" in done.stderr) == (1, True)
    shown = run("main", "models", "status", "--server", address).stdout
    assert [line.split()[:2] for line in shown.splitlines()[1:3]] == [
        ["one", "loaded"],
        ["two", "loaded"],
    ]
    done = run("main", "models", "unload", "--server", address, "one")
    assert (done.returncode, done.stdout) == (0, "one is unloaded\n")
    assert run("main", "models", "unload", "--server", address, "one").stdout == (
        "one is not loaded\n"
    )
    done = run("main", "models", "unload", "--server", address, "--no-wait", "two")
    assert done.stdout == "two is being unloaded\n"
    wait_until(lambda: _models(server)["two"]["state"] == "unloaded", "two is unloaded")


def test_a_request_loads_what_it_names(server: RunningServer) -> None:
    done = run("client", "--server", server.address, "--model", "two", "--max-tokens", "2", "a cat")
    assert done.returncode == 0, done.stderr
    models = _models(server)
    assert (models["one"]["loads"], models["two"]["loads"]) == (0, 1)
    assert models["two"]["engine"]["engine"] == "builtin"
    assert str(Path(models["two"]["fingerprint"]["name"])) == models["two"]["fingerprint"]["name"]
    shown = run("top", "--once", "--server", server.address).stdout
    assert "two" in shown
    assert "unloaded" in shown


def test_no_server_there() -> None:
    for command in (["load", "x"], ["unload", "x"], ["status"]):
        done = run("main", "models", *command, "--server", "127.0.0.1:1")
        assert done.returncode == 3, done.stderr
        assert "is llcuda-server running there?" in done.stderr
