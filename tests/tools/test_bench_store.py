"""The benchmark of the store measures what it says, on runs too short to say how much."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tools import bench_store

SCRIPT = [sys.executable, bench_store.__file__]


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_store.main(["--help"])
    assert "example:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--prune", "--results", "2000"]])
def test_every_figure_is_there(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["--seconds", "0.1", "--rate", "500", "--dir", str(folder), "--json", str(file)]
    assert bench_store.main([*arguments, *options]) == 0
    document = json.loads(file.read_text())
    assert document["machine"]["cores"]
    for figures in document["measurements"].values():
        assert figures["disk_count"] == 1000
    if arguments:
        assert document["measurements"]["prune"]["deleted"] == 1000
    else:
        assert document["measurements"]["paced"]["commit_count"] == 50
        assert 10 < document["measurements"]["journal, together"]["bytes_per_token"] < 150
        assert document["measurements"]["saturated"]["results_per_s"] >= 0  # 0 on a busy machine
    assert list(folder.iterdir()) == []
    assert "disk p50" in capsys.readouterr().out


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SCRIPT, "--seconds", "3600", "--dir", str(tmp_path)], stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: any(tmp_path.glob("*/0")), "it measures")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
