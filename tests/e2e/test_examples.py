"""Every example runs against a real server, names it either way, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, RunningServer, environment

EXAMPLES = Path(__file__).parents[2] / "examples"
#: A part of what each prints with the demonstration model.
PRINTS = {
    "chat.py": "> What is a slot?",
    "come_back.py": "left generation ",
    "complete.py": "A slot is",
    "conversation.py": " tokens of conversation were read",
    "embed.py": "The server listens on port 9000.",
    "openai_sdk.py": "A slot is one parallel sequence",
    "outlive.py": "none missing, none twice",
    "parallel.py": "a session (waited ",
    "stream.py": " tokens in ",
    "sync_client.py": "the server answers in ",
}


def test_every_example_is_here() -> None:
    # No demonstration model asks for tools: test_client_chat_e2e.py has that example.
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PRINTS, "tools.py"}


def run(name: str, *arguments: str, **extra: str) -> str:
    found = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**extra),
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_example(name: str, demo_server: RunningServer) -> None:
    assert PRINTS[name] in run(name, demo_server.address)


def test_an_example_takes_the_server_from_the_environment(demo_server: RunningServer) -> None:
    assert PRINTS["sync_client.py"] in run("sync_client.py", LLCUDA_SERVER=demo_server.address)
