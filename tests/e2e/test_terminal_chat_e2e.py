"""`llcuda chat` on a terminal, as somebody uses it: real processes, and the screen that is seen."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.cli.screen import Screen
from tests.support.processes import RunningServer, running_server
from tests.support.steady import endless_upstream, held_upstream, release

#: Tokens of an answer that come before it is released.
HELD = 20


def ask(server: RunningServer, path: str) -> Any:
    with urllib.request.urlopen(f"http://{server.address}{path}", timeout=60) as answer:
        return json.load(answer)


def entries(server: RunningServer) -> list[dict[str, Any]]:
    """What is in the one conversation that there is, oldest first."""
    (one,) = ask(server, "/v1/conversations")["data"]
    found = ask(server, f"/v1/conversations/{one['id']}/responses?limit=50")["data"]
    return sorted(found, key=lambda entry: float(entry["created_at"]))


def question(entry: dict[str, Any]) -> str:
    text: str = entry["input"][0]["content"][0]["text"]
    return text


def chat(server: RunningServer, folder: Path, *arguments: str, **environment: str) -> Screen:
    command = processes.command("main", "chat", "--server", server.address, *arguments)
    return Screen(command, {"XDG_STATE_HOME": str(folder / "state"), **environment})


@pytest.fixture(scope="module")
def demo() -> Iterator[RunningServer]:
    """With the demonstration model."""
    with running_server() as server:
        yield server


def test_a_conversation_of_the_page(demo: RunningServer, tmp_path: Path) -> None:
    """Several lines, a paste, versions, a file; then another terminal goes on with it."""
    with closing(chat(demo, tmp_path, "-n", "12", "--system", "Be brief.")) as screen:
        screen.prompt()
        screen.type("What is\x1b\ra slot?\r")
        screen.prompt()
        screen.paste("pasted\n  lines\n\nof a text")
        screen.until("… of a text")
        screen.type(" \\\rand one\r")
        screen.prompt()
        screen.type("/retry\r")
        screen.prompt()
        screen.type("/tokens\r")
        screen.until("the conversation takes")
        screen.type("/modle\r")
        screen.until("did you mean /model?")
        screen.type(f"/save {tmp_path / 'talk.md'}\r")
        screen.until("written to")
        screen.prompt()
        screen.type("\x03")
        screen.until("Ctrl-C once more")
        screen.type("\x03")
        assert screen.end() == 0
        last = " ".join(screen.lines[-2:])
    first, second, again = entries(demo)
    assert question(first) == "What is\na slot?"
    assert question(second) == question(again) == "pasted\n  lines\n\nof a text \nand one"
    assert again["previous"] == second["previous"] == first["id"]
    assert [one["instructions"] for one in (first, second, again)] == ["Be brief."] * 3
    (conversation,) = ask(demo, "/v1/conversations")["data"]
    assert "to go on later: llcuda chat --continue conv_" in last
    saved = (tmp_path / "talk.md").read_text()
    assert again["text"].strip() in saved
    assert "pasted\n  lines" in saved
    begun = conversation["id"][: len("conv_") + 6]
    for wanted in ("last", begun, begun.removeprefix("conv_"), again["id"]):
        with closing(chat(demo, tmp_path, "--continue", wanted)) as screen:
            screen.until("and one")
            screen.prompt()
            screen.type("\x04")
            assert screen.end() == 0
    with closing(chat(demo, tmp_path, "-n", "5", "--continue", "last")) as screen:
        screen.prompt()
        screen.type("\x1b[A\x1b[A\x1b[A")  # what was typed in the first one
        screen.until("/tokens")
        screen.type("\x03Go on.\r")
        screen.until("> Go on.")
        screen.prompt()
        screen.type("/quit\r")
        assert screen.end() == 0
    found = entries(demo)
    assert (question(found[-1]), found[-1]["previous"]) == ("Go on.", again["id"])
    assert found[-1]["instructions"] == "Be brief."


def test_wrong_names(demo: RunningServer, tmp_path: Path) -> None:
    for wanted, said in (("conv_0000", "no conversation of yours"), ("feedbeef", "no answer")):
        with closing(chat(demo, tmp_path, "--continue", wanted)) as screen:
            assert screen.end() != 0
            assert said in " ".join(screen.lines)


def test_a_question_is_changed_where_it_is_typed(tmp_path: Path) -> None:
    with running_server() as server, closing(chat(server, tmp_path, "-n", "3")) as screen:
        screen.prompt()
        screen.type("One question\r")
        screen.prompt()
        screen.type("/edit\r")
        screen.until(lambda rows: rows[-1] == "> One question")
        screen.type(" more\r")
        screen.until(lambda rows: "> One question more" in rows and rows[-1] == ">")
        screen.type("\x04")
        assert screen.end() == 0
        first, second = entries(server)
        assert question(second) == "One question more"
        assert first["versions"] == [first["id"], second["id"]]


def test_ctrl_c_stops_the_answer_and_not_the_chat(tmp_path: Path) -> None:
    with (
        endless_upstream() as upstream,
        running_server("--upstream", upstream) as server,
        closing(chat(server, tmp_path)) as screen,
    ):
        screen.prompt()
        screen.type("Go on for ever.\r")
        screen.until(lambda rows: len(rows) > 3)
        screen.resize(50, 20)
        before = len(screen.raw)
        screen.until(lambda rows: len(screen.raw) > before + 200)
        screen.type("typed meanwhile")
        screen.type("\x03")
        screen.until("stopped")
        screen.until(lambda rows: rows[-1].startswith(">"))
        (entry,) = entries(server)
        assert entry["status"] == "cancelled"
        assert entry["text"]
        screen.type("\x03\x03\x03")
        assert screen.end() == 0


def test_a_stream_goes_on_over_kill_9(tmp_path: Path) -> None:
    """The server is killed in the midst of an answer, and comes back."""
    with held_upstream(HELD) as upstream, ExitStack() as stack:
        arguments = ("--upstream", upstream, "--data-dir", str(tmp_path / "data"))
        server = stack.enter_context(running_server(*arguments))
        screen = stack.enter_context(closing(chat(server, tmp_path, "-n", "60", NO_COLOR="1")))
        screen.resize(300, 24)  # each note on one row
        screen.prompt()
        screen.type("A question\r")
        screen.until(lambda rows: len(rows) > 2 and len(rows[2]) > 5)
        server.stop(signal.SIGKILL)
        screen.until("connection lost")
        again = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
        release(upstream)
        screen.until("resumed at token")
        screen.prompt()
        (entry,) = entries(again)
        shown = "".join(line for line in screen.lines[2:-1] if not line.startswith("llcuda chat:"))
        assert entry["text"].replace(" ", "").replace("\n", "") in shown.replace(" ", "")
        screen.type("\x04")
        assert screen.end() == 0


def test_a_terminal_that_is_gone_leaves_the_answer(tmp_path: Path) -> None:
    """It goes on, and the next terminal shows it to its end."""
    with (
        held_upstream(HELD) as upstream,
        running_server("--upstream", upstream) as server,
    ):
        with closing(chat(server, tmp_path, "-n", "40")) as screen:
            screen.prompt()
            screen.type("A question\r")
            screen.until(lambda rows: len(rows) > 2 and len(rows[2]) > 5)
        release(upstream)
        with closing(chat(server, tmp_path, "--continue", "last")) as screen:
            screen.until("goes on with conv_")
            screen.prompt()
            screen.type("\x04")
            assert screen.end() == 0
        (entry,) = entries(server)
        assert entry["status"] in ("completed", "incomplete")


def test_what_is_not_stored_is_kept_nowhere(demo: RunningServer, tmp_path: Path) -> None:
    before = ask(demo, "/v1/conversations")["data"]
    with closing(chat(demo, tmp_path, "--store", "none", "-n", "3")) as screen:
        screen.prompt()
        screen.type("A secret\r")
        screen.prompt()
        screen.type("\x04")
        assert screen.end() == 0
    assert ask(demo, "/v1/conversations")["data"] == before
    assert not (tmp_path / "state").exists()
