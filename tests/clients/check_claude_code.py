"""Claude Code, as `claude -p`, with the tool by which it runs commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

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

#: It may run what the scripted model says; with IS_SANDBOX also as root, in a container.
PRINT = ("-p", "--dangerously-skip-permissions", "--output-format", "json")
#: What a scripted model calls.
CALL = [
    thought("I must look "),
    thought("into the file."),
    text("I look."),
    call(0, "Bash", "call_1"),
    arguments(0, '{"command":"cat marker.txt",'),
    arguments(0, '"description":"Read the marker"}'),
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder in which it works."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "marker.txt").write_text("the marker is 4711\n", encoding="utf-8")
    return folder


@pytest.fixture
def claude(client_of: Callable[..., Client]) -> Callable[[Served], Client]:
    """Makes one that is set up for a server."""

    def make(server: Served) -> Client:
        client = client_of("claude-code")
        exports = re.findall(r"^export (.*?)(?: +#.*)?$", documented("Claude Code", "sh"), re.M)
        found = dict(one.split("=", 1) for line in exports for one in line.split())
        found["ANTHROPIC_BASE_URL"] = f"http://{server.server.address}"
        client.environment |= found | {"IS_SANDBOX": "1"}
        return client

    return make


def test_a_command_is_run_and_its_output_answered(
    claude: Callable[[Served], Client], scripted: Served, work: Path
) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        ([text("The marker "), text("is 4711.")], "stop"),
        ([text("As I "), text("said.")], "stop"),
    ]
    client = claude(scripted)
    said = json.loads(client.command(*PRINT, "What is the marker?", cwd=work))
    assert (said["result"], said["is_error"], said["num_turns"]) == (
        "The marker is 4711.",
        False,
        2,
    )
    first, second = scripted.script.asked
    tools = {tool["function"]["name"]: tool["function"] for tool in first["tools"]}
    assert {"Bash", "Read", "Edit", "Write"} <= tools.keys()
    assert "What is the marker?" in str(first["messages"])
    *_, called, result = second["messages"]
    assert called["content"] == "I look."
    assert called["tool_calls"][0]["function"]["name"] == "Bash"
    assert result["role"] == "tool"
    assert "the marker is 4711" in str(result["content"])
    # The next turn brings all of the earlier one.
    said = json.loads(client.command(*PRINT, "--continue", "And again?", cwd=work))
    assert said["result"] == "As I said."
    third = [str(one["content"]) for one in scripted.script.asked[-1]["messages"]]
    assert any("The marker is 4711." in one for one in third)
    assert any("And again?" in one for one in third)


def test_an_error_is_shown(claude: Callable[[Served], Client], served: Served, work: Path) -> None:
    client = claude(served)
    with client.running(*PRINT, "What is the marker?", cwd=work) as running:
        said, _ = running.communicate(timeout=2 * PATIENCE)
    assert running.returncode == 1
    assert "knows no tools" in json.loads(said)["result"]


def test_leaving_ends_the_answer(
    claude: Callable[[Served], Client], scripted: Served, work: Path
) -> None:
    client = claude(scripted)
    leaves_in_the_middle(scripted, lambda: client.running(*PRINT, "Tell me.", cwd=work))


def test_it_survives_a_server_that_is_killed(
    claude: Callable[[Served], Client], work: Path, tmp_path: Path
) -> None:
    with killed_in_the_middle(tmp_path / "data") as (server, kill):
        client = claude(server)
        with client.running(*PRINT, "What is the marker?", cwd=work) as running:
            kill()
            said, _ = running.communicate(timeout=2 * PATIENCE)
        assert json.loads(said)["result"] == "The marker is 4711."
