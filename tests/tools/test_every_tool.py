"""Every tool starts from anywhere and explains itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.slow
def test_every_tool_has_help(tmp_path: Path) -> None:
    scripts = [p for p in sorted(TOOLS.glob("*.py")) if p.read_text("utf-8").startswith("#!")]
    assert len(scripts) > 15
    for script in scripts:
        done = subprocess.run(
            [sys.executable, script, "--help"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script.name}: {done.stderr}"
        assert done.stdout.startswith("usage: "), script.name
