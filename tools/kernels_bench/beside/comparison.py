"""Run the groups, each in its own process, and print the table as its rows come.

A group that fails, or whose process dies, costs only what it had not measured yet: that is said,
and nothing is printed for it.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.kernels_bench.beside.groups import GROUPS

ROOT = Path(__file__).resolve().parents[3]
#: Seconds for one group.
LIMIT = 180.0
HEAD = "| work | size | beside | ours, ms | theirs, ms | theirs over ours | spread |"
RULE = "|---|---|---|---|---|---|---|"


def compare(
    scale: float, only: str | None, say: Callable[[str], None], budget: float = math.inf
) -> dict[str, Any]:
    """All rows, what failed, and the versions; `say` is called with each line of the table.

    only: words with commas between them, of which one is in the name of each group that runs.
    budget: seconds; a group that would begin later is among the failed.
    """
    report: dict[str, Any] = {"rows": [], "failed": []}
    say(HEAD)
    say(RULE)
    begin = time.monotonic()
    words = [""] if only is None else [word.strip() for word in only.split(",")]
    names = [name for name in GROUPS if any(word in name for word in words)]
    waiting: dict[str, Any] = {}
    for number, name in enumerate(names):
        for soon in names[number : number + 2]:  # the next one imports while this one measures
            if soon not in waiting:
                waiting[soon] = start(soon, scale)
        left = begin + budget - time.monotonic()
        if left <= 0:
            waiting[name].kill()
        limit = min(LIMIT, max(left, 1.0))
        reason = finish(waiting[name], limit, lambda row: _take(row, report, say))
        if reason and left <= 0:
            reason = "the time was over before it began"
        if reason:
            report["failed"].append({"group": name, "error": reason})
    return report


def failures(report: dict[str, Any]) -> list[str]:
    """A line for each thing that was not measured."""
    rows = [
        f"{row['work']} ({row['size']}), {row.get('beside', 'all')}: {row['error']}"
        for row in report["rows"]
        if "error" in row
    ]
    return rows + [f"group {one['group']}: {one['error']}" for one in report["failed"]]


def table(report: dict[str, Any]) -> str:
    """The table in Markdown, and below it what was not measured."""
    lines = [HEAD, RULE, *(line(row) for row in report["rows"] if "error" not in row)]
    missing = failures(report)
    if missing:
        lines += ["", "Not measured:", "", *(f"- {reason}" for reason in missing)]
    return "\n".join(lines) + "\n"


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    ratio = row["ratio"]
    return (
        f"| {row['work']} | {row['size']} | {row['beside']} | {_time(row['ours'])} | "
        f"{_time(row['theirs'])} | {ratio['median']:.2f} | "
        f"{ratio['least']:.2f} to {ratio['greatest']:.2f} |"
    )


def _time(timed: dict[str, float]) -> str:
    return f"{timed['median']:.4g}"


def _take(row: dict[str, Any], report: dict[str, Any], say: Callable[[str], None]) -> None:
    if "versions" in row:
        report.update(row)
        return
    report["rows"].append(row)
    if "error" not in row:
        say(line(row))


def start(name: str, scale: float) -> subprocess.Popen[str]:
    """A group's process; it waits for a line before it uses the GPU."""
    command = [sys.executable, "-m", "tools.kernels_bench.beside", name, str(scale)]
    return _popen(command)


def _popen(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, text=True)


def finish(
    process: subprocess.Popen[str], limit: float, take: Callable[[dict[str, Any]], None]
) -> str:
    """Let a group measure; why it did not come to its end, or nothing."""
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=said.extend, args=(process.stderr,))
        reader.start()
        timer = threading.Timer(limit, process.kill)
        timer.start()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("go\n")
            process.stdin.close()
        for text in process.stdout:
            if text.startswith("{"):
                take(json.loads(text))
        code = process.wait()
        late = not timer.is_alive()
        timer.cancel()
        reader.join()
    if code == 0:
        return ""
    if late:
        return f"it took more than {limit:.0f} s"
    if code == 3:
        return "PyTorch with a GPU is not installed, so there is nothing to compare with"
    last = next((text.strip() for text in reversed(said) if text.strip()), "")
    return f"exit code {code}: {last}"
