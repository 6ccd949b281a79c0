"""llcuda-server with many command lines, each in a process forked from one that has imported it.

An interpreter and the server's modules take a second of CPU time; a fork takes some milliseconds.
This is for command lines that end by themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import PATIENCE, environment

ROOT = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a process has ended: what `subprocess.CompletedProcess` holds of it."""

    returncode: int
    stdout: str
    stderr: str


def run_servers(command_lines: Sequence[Sequence[str]]) -> list[Ended]:
    """The server with each of these command lines, one after another, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Ended(*ended) for ended in json.loads(done.stdout)]


def _run(command_line: Sequence[str]) -> tuple[int, str, str]:
    from llcuda_net.cli import server

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = server.main(command_line)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def main() -> None:
    """Command lines on stdin, how each ended on stdout, both as JSON."""
    import llcuda_net.server.app  # noqa: F401  before the forks and not in each

    json.dump([_run(command_line) for command_line in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
