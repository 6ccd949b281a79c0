"""aider edits a file in a repository, as told by a scripted model."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.processes import PATIENCE, wait_until
from tests.support.upstream.scripted_chat import text

#: What of it would ask the network, or a person.
QUIET = (
    "--yes-always",
    "--no-check-update",
    "--no-show-release-notes",
    "--analytics-disable",
    "--no-show-model-warnings",
    "--no-detect-urls",
    "--no-pretty",
    "--no-fancy-input",
    "--no-suggest-shell-commands",
    "--no-browser",
    "--map-tokens=0",
)
EDIT = """\
I change the word.

hello.py
```python
<<<<<<< SEARCH
print("hello")
=======
print("good day")
>>>>>>> REPLACE
```
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "hello.py").write_text('print("hello")\n', encoding="utf-8")
    for arguments in (
        ("init", "--quiet"),
        ("config", "user.name", "tests"),
        ("config", "user.email", "tests@localhost"),
        ("add", "hello.py"),
        ("commit", "--quiet", "--message", "hello"),
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def aider(client: Client, served: Served) -> list[str]:
    """Its command line; the environment is set."""
    client.environment |= {
        "OPENAI_API_BASE": served.url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return ["-m", "aider", "--model", "openai/demo", "--edit-format", "diff", *QUIET]


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_it_edits_a_file(
    client_of: Callable[..., Client], scripted: Served, repository: Path, stream: str
) -> None:
    words = [text(line) for line in EDIT.splitlines(keepends=True)]
    scripted.script.answers = [(words, "stop")]
    client = client_of("aider")
    command = [*aider(client, scripted), stream, "--message", "Be more polite.", "hello.py"]
    said = client.command(*command, cwd=repository)
    assert "Applied edit to hello.py" in said
    assert (repository / "hello.py").read_text(encoding="utf-8") == 'print("good day")\n'
    asked = scripted.script.asked[0]["messages"]
    assert "Be more polite." in asked[-1]["content"]


def test_an_error_is_shown(
    client_of: Callable[..., Client], served: Served, repository: Path
) -> None:
    # Its prompts are longer than the context of the built-in model.
    client = client_of("aider")
    command = [*aider(client, served), "--message", "Be more polite.", "hello.py"]
    said = client.command(*command, cwd=repository)
    assert "context" in said


def test_leaving_frees_the_slot(
    client_of: Callable[..., Client], held: Served, repository: Path
) -> None:
    client = client_of("aider")
    command = [*aider(client, held), "--message", "Tell me a story.", "hello.py"]

    def leave() -> None:
        with subprocess.Popen(
            [str(client.interpreter), *command],
            cwd=repository,
            env=client.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            wait_until(lambda: held.slots() == 1, "it is answered", 2 * PATIENCE)
            running.send_signal(signal.SIGINT)
            running.kill()

    frees_its_slot(held, leave)
