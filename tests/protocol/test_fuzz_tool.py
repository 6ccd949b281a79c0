"""The fuzzing tool itself: its seeds are good, its check finds faults, and it says so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llcuda_protocol import Connection, Ping, Role, frames
from llcuda_protocol.frames import encode
from tools import fuzz_protocol, protocol_harness
from tools.protocol_harness import make_check
from tools.protocol_starts import LIMITS, begin

ROOT = Path(__file__).parents[2]
TOOL = [sys.executable, str(ROOT / "tools" / "fuzz_protocol.py")]
PING = b"\0" + encode(Ping(b"abc"))


@pytest.mark.parametrize(("role", "start"), fuzz_protocol.HARNESSES)
def test_seeds(role: str, start: str, tmp_path: Path) -> None:
    fuzz_protocol.seed(tmp_path, role, start)
    check = make_check(Role(role), fuzz_protocol.state(role, start))
    seeds = list(tmp_path.iterdir())
    assert len(seeds) > 50
    for path in seeds:
        check(path.read_bytes())


def test_words(tmp_path: Path) -> None:
    fuzz_protocol.words(tmp_path / "words")
    lines = (tmp_path / "words").read_text().splitlines()
    assert len(lines) > 30
    assert all(re.fullmatch(r'"(\\x[0-9a-f]{2})+"', line) for line in lines)


def test_the_check_finds_another_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    check = make_check(Role.SERVER, "open")
    check(PING)
    monkeypatch.setattr(frames, "_event", lambda *_: next(iter(())))
    with pytest.raises(StopIteration):
        check(PING)


def test_the_check_finds_a_growing_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    check = make_check(Role.SERVER, "open")
    monkeypatch.setattr(Connection, "buffered", property(lambda _: 1 << 20))
    with pytest.raises(AssertionError):
        check(PING)


def test_the_check_finds_a_frame_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    over = b"\x40" + (LIMITS.max_frame + 1).to_bytes(4, "big")
    make_check(Role.SERVER, "open")(over)
    unlimited = begin(Role.SERVER, "open")
    unlimited._reader.max_frame = 1 << 30
    monkeypatch.setattr(protocol_harness, "begin", lambda *_: unlimited)
    with pytest.raises(AssertionError):
        make_check(Role.SERVER, "open")(over)


def test_the_check_finds_an_unreadable_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    check = make_check(Role.SERVER, "open")
    check(b"\x80\xc1")
    monkeypatch.setattr(Connection, "_close", lambda self: setattr(self, "state", "closed"))
    with pytest.raises(AssertionError):
        check(b"\0" + bytes(4) + b"kept")


def test_help_shows_an_example() -> None:
    done = subprocess.run([*TOOL, "--help"], capture_output=True, text=True, check=True)
    assert "python tools/fuzz_protocol.py --" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs the extra fuzz")
def test_a_short_run_counts_its_inputs(tmp_path: Path) -> None:
    command = [*TOOL, "--role", "client", "--start", "new", "--runs", "2000"]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "client/new: 2,000 inputs, nothing" in done.stdout
    assert "2,000 inputs in all" in done.stdout
