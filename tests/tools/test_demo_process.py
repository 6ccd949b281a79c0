"""The demonstration as a process: what it hands on, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, children, environment, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


def test_an_answer_that_outlives_its_server(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = ended.stdout
    assert said.count("\n$ llcuda-server ") + said.startswith("$ llcuda-server ") == 2
    assert "\n$ kill -9 " in said
    assert "The client: connection lost after " in said
    assert "none missing, none twice" in said
    assert "the same answer, word for word" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_server(number: signal.Signals, tmp_path: Path) -> None:
    server = tmp_path / "llcuda-server"
    started = tmp_path / "started"
    server.write_text(
        f"#!{sys.executable}\n"
        "import os, time\n"
        "assert 'LLCUDA_MODEL' not in os.environ\n"
        f"open({str(started)!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    server.chmod(0o755)
    code = "import sys; from tools import demo; sys.executable = sys.argv[1]; sys.exit(demo.main())"
    demo = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "python")],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(LLCUDA_MODEL="no-such.gguf"),
    )
    wait_until(started.exists, "the demo's server runs")
    (pid,) = children(demo.pid)
    demo.send_signal(number)
    assert demo.wait(PATIENCE) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
