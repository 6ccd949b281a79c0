"""Codex, as `codex exec`, with the tool by which it runs commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import (
    Client,
    Served,
    documented,
    killed_in_the_middle,
    leaves_in_the_middle,
)
from tests.support.processes import PATIENCE
from tests.support.upstream.scripted_chat import arguments, call, text, thought

#: Without sandbox, which it cannot set up in every container: the commands are ours.
EXEC = (
    "exec",
    "--strict-config",
    "--skip-git-repo-check",
    "--dangerously-bypass-approvals-and-sandbox",
)
#: What a scripted model calls.
CALL = [
    thought("I must look "),
    thought("into the file."),
    call(0, "exec_command", "call_1"),
    arguments(0, '{"cmd":'),
    arguments(0, '"cat marker.txt"}'),
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder in which it works."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "marker.txt").write_text("the marker is 4711\n", encoding="utf-8")
    return folder


@pytest.fixture
def codex(client_of: Callable[..., Client], home: Path) -> Callable[[Served], Client]:
    """Makes one that is set up for a server."""

    def make(server: Served) -> Client:
        client = client_of("codex")
        (home / ".codex").mkdir()
        config = documented("Codex", "toml").replace("http://127.0.0.1:9000/v1", server.url)
        assert server.url in config
        (home / ".codex" / "config.toml").write_text(config, encoding="utf-8")
        return client

    return make


def names(asked: dict[str, Any]) -> set[str]:
    """The tools that the upstream was given."""
    return {tool["function"]["name"] for tool in asked["tools"]}


def test_a_command_is_run_and_its_output_answered(
    codex: Callable[[Served], Client], scripted: Served, work: Path
) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        ([text("The marker "), text("is 4711.")], "stop"),
        ([text("As I "), text("said.")], "stop"),
    ]
    client = codex(scripted)
    said = client.command(*EXEC, "What is the marker?", cwd=work)
    assert said.strip() == "The marker is 4711."
    first, second = scripted.script.asked
    assert names(first) == {"exec_command", "write_stdin", "request_user_input", "view_image"}
    assert "What is the marker?" in str(first["messages"][-1]["content"])
    *_, called, result = second["messages"]
    assert called["tool_calls"][0]["function"]["name"] == "exec_command"
    assert result["role"] == "tool"
    assert "the marker is 4711" in str(result["content"])
    # The next turn brings all of the earlier one.
    said = client.command(*EXEC, "resume", "--last", "And again?", cwd=work)
    assert said.strip() == "As I said."
    third = [str(one["content"]) for one in scripted.script.asked[-1]["messages"]]
    assert any("The marker is 4711." in one for one in third)
    assert "And again?" in third[-1]


def test_an_error_is_shown(codex: Callable[[Served], Client], served: Served, work: Path) -> None:
    client = codex(served)
    with client.running(*EXEC, "What is the marker?", cwd=work) as running:
        _, told = running.communicate(timeout=2 * PATIENCE)
    assert running.returncode == 1
    assert "knows no tools" in told


def test_leaving_ends_the_answer(
    codex: Callable[[Served], Client], scripted: Served, work: Path
) -> None:
    client = codex(scripted)
    leaves_in_the_middle(scripted, lambda: client.running(*EXEC, "Tell me.", cwd=work))


def test_it_survives_a_server_that_is_killed(
    codex: Callable[[Served], Client], work: Path, tmp_path: Path
) -> None:
    with killed_in_the_middle(tmp_path / "data") as (server, kill):
        client = codex(server)
        with client.running(*EXEC, "What is the marker?", cwd=work) as running:
            kill()
            said, _ = running.communicate(timeout=2 * PATIENCE)
        assert said.strip() == "The marker is 4711."
