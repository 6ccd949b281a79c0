"""Logs as a process writes them: one JSON object per line, whoever logs."""

from __future__ import annotations

import functools
import json
import os
import pty
import shlex
import subprocess
import sys

import pytest

_PROGRAM = """
import logging, sys
import structlog
from llcuda_net.util import logs
logs.configure(sys.argv[1], sys.argv[2])
log = structlog.get_logger("ours")
log.debug("fine", n=1)
log.info("told", text="two\\nlines", path=object)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("crashed")
logging.getLogger("trio.serve_listeners").error("accept returned %s", "EMFILE")
logging.getLogger("httpx").info("HTTP Request: GET /")
"""


@functools.cache
def _written(level: str, style: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, level, style], capture_output=True, text=True, check=True
    )
    assert ended.stdout == ""
    return ended.stderr


@pytest.mark.parametrize("style", ["json", "auto"])  # a pipe is no terminal
def test_every_line_is_json(style: str) -> None:
    lines = [json.loads(line) for line in _written("info", style).splitlines()]
    assert [line["event"] for line in lines] == ["told", "crashed", "library"]
    told, crashed, library = lines
    assert (told["level"], told["text"]) == ("info", "two\nlines")
    assert told["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in crashed["exception"]
    assert (library["level"], library["logger"]) == ("error", "trio.serve_listeners")
    assert library["message"] == "accept returned EMFILE"


def test_the_level_says_what_is_written() -> None:
    assert '"fine"' in _written("debug", "json")
    assert '"fine"' not in _written("info", "json")
    only = [json.loads(line)["event"] for line in _written("error", "json").splitlines()]
    assert only == ["crashed", "library"]


def test_for_people_without_colour_where_there_is_no_terminal() -> None:
    text = _written("info", "human")
    assert "told" in text
    assert "ZeroDivisionError" in text
    assert "\x1b" not in text


_CLOSED = """
import sys
from llcuda_net.util import logs
assert sys.stderr is None
logs.configure("info")
logs.progress("loading")
import structlog
structlog.get_logger().info("told")
"""


def test_without_stderr_it_says_nothing() -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(_CLOSED)} 2>&-"
    assert subprocess.run(command, shell=True, check=False).returncode == 0


_ON_A_TERMINAL = """
import structlog
from llcuda_net.util import logs
logs.configure("info", "json")
logs.progress("loading")
structlog.get_logger().info("told")
structlog.get_logger().info("told")
"""


def _on_a_terminal(program: str, **environment: str) -> str:
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", program],
            stderr=slave,
            check=True,
            env={**os.environ, "NO_COLOR": "", **environment},
        )
        return os.read(master, 65_536).decode()
    finally:
        os.close(master)
        os.close(slave)


def test_a_line_does_not_stick_to_the_progress() -> None:
    text = _on_a_terminal(_ON_A_TERMINAL, TERM="xterm")
    assert text.startswith("\r\x1b[Kloading\r\x1b[K{")
    assert text.count("\x1b") == 2
    assert "loading" not in _on_a_terminal(_ON_A_TERMINAL, TERM="dumb")


def test_colour_on_terminals_that_know_it() -> None:
    program = _ON_A_TERMINAL.replace("json", "human")
    assert "\x1b[1m" in _on_a_terminal(program, TERM="xterm")
    assert "\x1b" not in _on_a_terminal(program, TERM="dumb")
