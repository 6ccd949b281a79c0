"""The benchmark of slots measures all ways in turn, with full streams, and says what went wrong."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tools import bench_slots
from tools.overhead.processes import ROOT, synthetic_upstream

SYNTHETIC = [sys.executable, str(ROOT / "tools" / "synthetic_upstream.py"), "--slots", "4"]
SHORT = ["--streams", "2", "--seconds", "0.2", "--warmup", "0", "--answer", "6", "--prompt", "4"]


@pytest.mark.parametrize("kind", ["distinct", "conversations"])
def test_all_ways_are_measured_in_turn(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    with synthetic_upstream("--slots", "4", "--rate", "200") as upstream:
        url = "http://{}:{}".format(*upstream.address)
        against = ["--against", bench_slots.parser().get_default("server"), "--json", str(file)]
        asked = ["--upstream", url, "--workload", kind, "--repeats", "2", *SHORT, *against]
        for seconds in ("0.2", "2", "20"):  # as short as this machine allows today
            code = bench_slots.main([*asked, "--seconds", seconds])
            said = capsys.readouterr()
            assert code == 0, said.err
            assert "6 of 6 runs" in said.out
            report = json.loads(file.read_text())
            if all(run["answers"] for run in report["runs"]):
                break
    ways = [(run["way"], run["repeat"]) for run in report["runs"]]
    assert ways[:3] == [("direct", 0), ("llcuda", 0), ("against", 0)]
    assert ways[3:] == [("llcuda", 1), ("against", 1), ("direct", 1)]
    assert all(run["tokens_per_s"] > 0 and run["answers"] > 0 for run in report["runs"])
    (row,) = report["summary"]
    assert row["to_direct"]["count"] == 2


def test_a_llama_server_is_started_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    # It takes --host and --port as a llama-server does.
    command = shlex.join([*SYNTHETIC, "--rate", "200"])
    code = bench_slots.main(["--llama", command, "--workload", "one", "--repeats", "1", *SHORT])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "one" in said.out


def test_one_that_does_not_start_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_slots.main(["--llama", "/no/such/llama-server", *SHORT]) == 1
    assert "/no/such/llama-server" in capsys.readouterr().err


def test_the_budget_makes_the_windows() -> None:
    args = ["--upstream", "http://127.0.0.1:1", "--budget"]
    bench = bench_slots.Bench(bench_slots.parser().parse_args([*args, "300"]))
    assert bench.total == 3 * 6 * 3 * 2
    spent = bench.total * (bench.seconds + bench.warmup + bench_slots.BESIDE)
    assert spent == pytest.approx(300)
    short = bench_slots.Bench(bench_slots.parser().parse_args([*args, "1"]))
    assert short.seconds == 0.5
