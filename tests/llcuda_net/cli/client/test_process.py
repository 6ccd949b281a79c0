"""llcuda-client as a real process: signals, pipes, terminals, --chat.

The server is a scripted one on loopback.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_net.cli.common import Exit
from tests.support import processes
from tests.support.cli.terminal import PATIENCE, Terminal, spawn_client
from tests.support.client.scripted_server import Scripted


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)]
)
def test_signals_cancel_on_the_server(server: Scripted, number: int, code: int) -> None:
    with spawn_client("endless") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(6) == b"begun "
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
    assert server.cancelled.wait(PATIENCE)


@pytest.mark.usefixtures("address")
def test_a_closed_pipe_ends_it_in_silence(server: Scripted) -> None:
    with spawn_client("flood") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"word"
        process.stdout.close()
        assert process.wait(PATIENCE) == Exit.PIPE
        assert process.stderr.read() == b""
    assert server.cancelled.wait(PATIENCE)


@pytest.mark.usefixtures("address")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full, spawn_client("a b", stdout=full) as process:
        assert process.stderr is not None
        assert process.wait(PATIENCE) == Exit.REFUSED
        assert process.stderr.read() == b"llcuda-client: error: No space left on device\n"


@pytest.mark.parametrize(("command", "flag"), [("client", "--version"), ("server", "--help")])
def test_help_on_a_full_disk_is_one_line(command: str, flag: str) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            processes.command(command, flag),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        )
    line = f"llcuda-{command}: error: No space left on device\n".encode()
    assert (ended.returncode, ended.stderr) == (Exit.REFUSED, line)


@pytest.mark.parametrize("command", ["client", "server"])
def test_an_interrupt_of_the_imports_is_no_traceback(command: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")
    code = f"import sys; from llcuda_net.cli.entry_points import {command}; sys.exit({command}())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert (ended.returncode, ended.stderr) == (Exit.INTERRUPTED, b"")


def test_help_is_cheap() -> None:
    """--help and --help-all import nothing that takes time, so that they answer at once."""
    heavy = ["trio", "httpx", "numba", "xllamacpp", "msgspec", "structlog", "msgpack", "asyncio"]
    for option, told in (("--help", b"examples:"), ("--help-all", b"exit codes:")):
        code = (
            "import sys, llcuda_net, llcuda_net.cli.client.command as c\n"
            f"try: c.main(['{option}'])\n"
            "except SystemExit as e: assert not e.code\n"
            f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert found.stderr == b"[]\n"
        assert told in found.stdout


@pytest.mark.usefixtures("address")
def test_progress_on_a_terminal_is_taken_away(server: Scripted) -> None:
    server.queue = (3, 1)
    server.wait, server.reason = 12.4, "all 4 slots are in use"
    terminal = Terminal("a b", NO_COLOR="1")
    terminal.until("waiting... position 3, about 12 s: all 4 slots are in use")
    terminal.until("\r\x1b[Kwaiting... position 1, about 12 s: all 4 slots are in use")
    assert terminal.until("a b\r\n") == "\r\x1b[Ka b\r\n"
    assert terminal.end() == Exit.OK


@pytest.mark.usefixtures("address")
def test_colour_on_a_terminal() -> None:
    """And none with NO_COLOR: see the refusal in the chat below."""
    terminal = Terminal("refuse")
    terminal.until("\x1b[31merror:\x1b[0m the queue is full")
    assert terminal.end() == Exit.REFUSED


@pytest.mark.usefixtures("address")
def test_a_terminal_obeys_nothing_that_a_model_says() -> None:
    terminal = Terminal("\x1b]0;title\x07 \x9b2J", "--raw")
    shown = terminal.until("\r\n")
    assert "\\x1b]0;title\\x07 \\u009b2J" in shown
    assert terminal.end() == Exit.OK


@pytest.mark.usefixtures("address")
def test_a_chat_keeps_its_history(server: Scripted) -> None:
    """On a terminal that can do nothing but print; on others there is a line editor."""
    terminal = Terminal("--chat", "--system", "be kind", TERM="dumb")
    terminal.until("> ")
    terminal.type("first question\n")
    terminal.until("first question\r\n")  # what was typed
    terminal.until("first question\r\n")  # the answer
    terminal.until("> ")
    terminal.type("endless\n")
    terminal.until("begun ")
    terminal.type("\x03")
    terminal.until("stopped")
    assert server.cancelled.wait(PATIENCE)
    terminal.until("> ")
    terminal.type("refuse\n")
    terminal.until("llcuda-client: error: the queue is full")
    terminal.until("> ")
    terminal.type("/frob\n")
    terminal.until("no command /frob")
    terminal.type("/system be terse\n")
    terminal.until("system message set")
    terminal.until("> ")
    terminal.type("last one\n")
    terminal.until("last one\r\n")
    terminal.until("last one\r\n")
    terminal.type("/clear\n")
    terminal.until("forgotten")
    terminal.type("anew\n")
    terminal.until("anew\r\n")
    terminal.until("anew\r\n")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.end() == Exit.OK
    messages = [request.messages or [] for request in server.requests()]
    said = [[f"{m['role'][0]}:{m['content']}" for m in each] for each in messages]
    first = ["u:first question", "a:first question"]
    stopped = ["u:endless", "a:begun "]
    assert said == [
        ["s:be kind", "u:first question"],
        ["s:be kind", *first, "u:endless"],
        ["s:be kind", *first, *stopped, "u:refuse"],
        ["s:be terse", *first, *stopped, "u:last one"],
        ["s:be terse", "u:anew"],
    ]


@pytest.mark.usefixtures("address")
def test_a_chat_outlives_its_connection(server: Scripted) -> None:
    terminal = Terminal("--chat", "hello", TERM="dumb")
    terminal.until("hello\r\n")
    terminal.until("> ")
    terminal.type("drop\n")
    terminal.until("the next question connects again")
    terminal.until("> ")
    terminal.type("back\n")
    terminal.until("back\r\n")
    terminal.until("back\r\n")
    terminal.type("/exit\n")
    assert terminal.end() == Exit.OK
    assert server.requests()[-1].messages == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "back"},
    ]


@pytest.mark.usefixtures("address")
def test_a_chat_with_lines_from_a_pipe() -> None:
    with spawn_client("--chat", stdin=subprocess.PIPE) as process:
        out, err = process.communicate(b"one two\n\nrefuse\n/help\nthree\n", PATIENCE)
        assert (process.returncode, out) == (Exit.REFUSED, b"one two\nthree\n")
        assert err.startswith(b"llcuda-client: error: the queue is full")
    with spawn_client("--chat", stdin=subprocess.PIPE) as process:
        out, err = process.communicate(b"\xff\n", PATIENCE)
        assert process.returncode == Exit.USAGE
        assert err.startswith(b"llcuda-client: error: standard input is not UTF-8")
        assert err.count(b"\n") == 1
