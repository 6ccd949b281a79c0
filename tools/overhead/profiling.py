"""Where the event loop's CPU goes, by py-spy's samples of the stacks of the main thread."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

INSTALL = "py-spy is not installed; for --profile: python -m pip install py-spy"
#: Samples per second. Each stops the process for a moment, so more would change what is sampled.
RATE = 500
#: Least seconds of sampling, and least samples for which shares are reported.
SECONDS = 10.0
ENOUGH = 100
#: Innermost frames that wait in the kernel. py-spy cannot always see that they do not run.
_WAITING = ("get_events (trio", "select (selectors.py", "wait (threading.py")
#: The outermost frame of the main thread ends so. Of other threads py-spy cannot tell which wait.
_MAIN = ": MainThread"


def py_spy() -> str | None:
    """Where py-spy is: beside this Python, or in PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def start(pid: int, seconds: float, file: Path) -> subprocess.Popen[bytes]:
    """Sample a process; `file` gets one line a stack, outermost frame first, and its samples."""
    command = [py_spy() or "py-spy", "record", "--pid", str(pid), "--format", "raw", "--function"]
    command += ["--threads", "--duration", str(max(1, round(seconds))), "--rate", str(RATE)]
    command += ["--output", str(file)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def shares(stacks: str) -> tuple[int, list[tuple[str, float, float]]]:
    """How many samples there are, and the functions, the largest first.

    A function is (its name, its own share, its share with what it calls).

    Time in the kernel or in C code belongs to the Python function that called it. Waiting for
    events is left out, and with it what the wait itself costs.
    """
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not count.isdigit() or not frames[0].endswith(_MAIN):
            continue
        if any(waiting in frames[-1] for waiting in _WAITING):
            continue
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames[1:]):
            whole[frame] += int(count)
    return total, [(frame, n / total, whole[frame] / total) for frame, n in own.most_common()]


def table(file: Path, rows: int = 25) -> str:
    """The largest shares of a profile, as text."""
    samples, found = shares(file.read_text("utf-8"))
    if samples < ENOUGH:
        return f"only {samples} samples: too few to tell; sample for longer"
    lines = [f"{samples} samples", "   own   with callees   function"]
    for frame, own, whole in found[:rows]:
        lines.append(f"{own:6.1%}   {whole:12.1%}   {frame}")
    return "\n".join(lines)
