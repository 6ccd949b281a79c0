"""What a process is given, and what is heard of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.server.processes import child as children
from llcuda_net.server.processes.child import Child, command_line, options
from llcuda_net.server.processes.part import Part

UPSTREAM = (UpstreamSpec("http://127.0.0.1:1", "up"),)


@pytest.fixture(autouse=True)
def no_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "cgroup_limit", lambda: None)


def given(settings: Settings, part: Part, store: str | None = None) -> dict[str, str]:
    words = options(settings, part, folder=Path("/d"), port=7, alone="h:8", store=store)
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_users_options_come_first_and_the_engines_last() -> None:
    line = command_line(["--port", "0"], ["--flash-attn", "on"], ["--port", "7"])
    assert line[-7:] == ["--port", "0", "--port", "7", "--", "--flash-attn", "on"]
    assert "--" not in command_line(["--port", "0"], None, [])


def test_each_has_its_folder_its_number_and_its_port_of_metrics() -> None:
    settings = Settings(upstream=UPSTREAM, metrics_port=9100, name="ant")
    second = given(settings, Part(2, 3, "h", 8), "postgresql:///x")
    assert second == {
        "--processes": "1",
        "--as-process": "2/3:h:8",
        "--port": "7",
        "--data-dir": "/d",
        "--store": "postgresql:///x",
        "--name": "ant-2",
        "--advertise": "h:8",
        "--metrics-port": "9101",
    }
    # A password in the given URL does not come into the command line.
    assert "--store" not in given(Settings(upstream=UPSTREAM), Part(1, 2, "h", 8))
    settings = Settings(upstream=UPSTREAM, metrics_port=0)
    assert "--metrics-port" not in given(settings, Part(1, 2, "h", 8))


def test_models_of_all_together_take_what_those_of_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(9))
    found = given(Settings(memory=1000), Part(1, 4, "h", 8))
    assert (found["--memory"], found["--threads"]) == ("250", "2")
    assert "--memory-limit" not in found
    found = given(Settings(memory_limit=4 << 30), Part(1, 4, "h", 8))
    assert found["--memory-limit"] == str(1 << 30)
    monkeypatch.setattr(children, "cgroup_limit", lambda: 2 << 30)
    assert given(Settings(), Part(1, 4, "h", 8))["--memory-limit"] == str(256 << 20)
    assert given(Settings(), Part(1, 99, "h", 8))["--memory-limit"] == str(128 << 20)
    assert "--gpu-memory" not in found
    assert given(Settings(threads=8), Part(1, 4, "h", 8))["--threads"] == "8"
    assert given(Settings(), Part(1, 200, "h", 8))["--threads"] == "1"


@pytest.mark.parametrize("text", ["", "1/2", "0/2:h:5", "1/2:5", "-1/2:h:5", "1/2:h:5 ", "1/2:h:0"])
def test_a_part_is_read_as_it_was_written_and_nothing_else_is(text: str) -> None:
    for part in (Part(3, 12, "127.0.0.1", 40), Part(3, 12, "fd00::5", 40)):
        assert Part.parse(str(part)) == part
    with pytest.raises(ValueError, match="no process of ours"):
        Part.parse(text)


async def _run(program: str) -> tuple[int, Sequence[str]]:
    lines: list[str] = []
    child = Child(1, [sys.executable, "-c", program])
    child.start()
    assert child.pid is not None
    return await child.watch(lines.append), lines


async def test_all_that_it_printed_is_heard_and_how_it_ended() -> None:
    code, lines = await _run("print('listening on x'); print('y', end='', flush=True); exit(3)")
    assert (code, lines) == (3, ["listening on x"])
    code, _ = await _run("import os; os.kill(os.getpid(), 9)")
    assert code == -signal.SIGKILL


async def test_what_it_started_may_keep_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_LAST_WORDS", 0.0)
    program = "import subprocess as s; s.Popen(['sleep', '30'], stdin=s.DEVNULL); print('x')"
    assert (await _run(program))[0] == 0
