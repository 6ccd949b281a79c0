"""An upstream for the commands, and the commands run in this process.

Nothing here depends on how fast the machine is: bounds are wide where a run must be valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from llcuda_net.bench.report import document
from llcuda_net.cli.main import main
from tools import synthetic_upstream

QUICK = ["--warmup", "100ms", "--max-tokens", "8", "--max-lag", "30s", "--no-self-test"]


class Bench(Protocol):
    """Runs `llcuda bench …`."""

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """Its exit code, its JSON, and what it printed."""


@pytest.fixture(scope="session")
def upstream() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "500", "--slots", "8", "--ctx", "100000") as url:
        yield url


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        file = tmp_path / "found.json"
        file.unlink(missing_ok=True)
        try:
            code = main(["bench", *arguments, "--json", str(file)])
        except SystemExit as error:
            code = int(error.code or 0)
        printed = capsys.readouterr()
        found = json.loads(file.read_text()) if file.exists() else {}
        if found:
            assert not document.faults(found)  # as bench/record/schema.json says
        return code, found, printed.out + printed.err

    return run


def came_through(code: int, found: dict[str, Any], said: str) -> None:
    """It ran to its end; where other work keeps the cores busy it says that it is INVALID."""
    assert code == (1 if found["problems"] else 0), said
