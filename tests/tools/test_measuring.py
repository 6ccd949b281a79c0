"""The measuring tools run as a user runs them, on runs too short to say how much.

Nothing here depends on how fast the machine is: bounds are wide where a run must be valid.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.batch.record import Outcome, Record
from tools import bench_latency, bench_scaling, bench_throughput, synthetic_upstream
from tools.measuring import curve, mpirun, noop, options
from tools.measuring.steps import keeps

WIDE = ["--max-lag", "30s", "--no-self-test"]
QUICK = ["--warmup", "100ms", "--max-tokens", "8", *WIDE]


def came_through(done: subprocess.CompletedProcess[str]) -> None:
    """It ran to its end; where other work keeps the cores busy it says that it is INVALID."""
    valid = "INVALID" not in done.stdout
    assert done.returncode == (0 if valid else 1), done.stderr + done.stdout


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "500", "--slots", "8", "--ctx", "100000") as url:
        yield url


def run(tool: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, tool.__file__, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**mpirun.environment(), "NO_COLOR": "1"},
    )


def test_latency_of_both_ways(tmp_path: Path, upstream: str) -> None:
    """Here both are the same llama-server: what the second way costs is about nothing."""
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    done = run(
        bench_latency, "--server", upstream, "--direct", upstream, "--rate", "60", "--repeats", "2",
        "--seconds", "1.5", "--cuda-work", "1000", "--cuda-iters", "2", *QUICK, *files,
    )  # fmt: skip
    came_through(done)
    found = json.loads((tmp_path / "a.json").read_text())
    gateway = found["paths"]["gateway"]
    assert gateway["outcomes"]["done"] == gateway["requests"] > 30
    assert gateway["tokens"] == 8 * gateway["requests"]
    assert gateway["metrics"]["ttft"]["p50"]["low"] <= gateway["metrics"]["ttft"]["p50"]["value"]
    assert gateway["metrics"]["ttft"]["p99"] is None  # too few to say
    assert gateway["metrics"]["gap"]["p50"]["value"] > 1  # of 2 ms, and no less
    assert found["cost"]["service_ttft"]["pairs"] > 30
    assert found["seed"] == 1
    assert found["machine"]["cores"] >= 1
    assert found["post"].startswith("spin, 1,000 numbers, 2 rounds")
    assert gateway["post"]["count"] == gateway["requests"]
    assert len(found["repetitions"]["ttft p50"]) == 2
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") >= 4
    assert "the gateway's own cost" in done.stdout

    again = run(
        bench_latency, "--server", upstream, "--rate", "60", "--seconds", "1", *QUICK,
        "--compare", str(tmp_path / "a.json"),
    )  # fmt: skip
    came_through(again)
    assert "cannot compare: direct differs" in again.stdout


def test_an_overtaxed_client_is_invalid(upstream: str) -> None:
    done = run(
        bench_latency, "--server", upstream, "--rate", "50", "--seconds", "1", "--repeats", "1",
        "--no-self-test", "--max-lag", "0s",
    )  # fmt: skip
    assert done.returncode == 1
    assert "INVALID: run 1: the client could not keep up" in done.stdout


def test_a_server_that_is_not_there() -> None:
    for server, code in (("127.0.0.1:1", 3), ("http://127.0.0.1:1", 1), ("http://", 2)):
        done = run(bench_latency, "--server", server)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_throughput_against_concurrency_and_rate(tmp_path: Path, upstream: str) -> None:
    """8 slots, 8 tokens in 14 ms (the first comes at once): 4,571 tokens/s, and no more."""
    file = tmp_path / "t.json"
    done = run(
        bench_throughput, "--server", upstream, "--concurrency", "1,2,8,16", "--rates", "20,900",
        "--seconds", "0.5", "--rounds", "1", "--slo", "ttft=5s,tpot=1s", "--json", str(file),
        "--html", str(tmp_path / "t.html"), *QUICK,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr  # 900 requests/s may be too many for us
    found = json.loads(file.read_text())
    assert [row["load"] for row in found["concurrency"]] == [1, 2, 8, 16]
    one, _, eight, sixteen = (row["tokens_per_s"]["value"] for row in found["concurrency"])
    assert 0 < one < eight
    assert sixteen < 4800
    assert found["rates"][1]["saturated"] == "yes"
    assert found["rates"][0]["goodput"]["value"] > 0
    assert any("8 slots" in text for text in found["cautions"])
    assert "requests/s on" in done.stdout  # "saturated from … requests/s on"


def test_a_sweep_of_ranks(tmp_path: Path, upstream: str) -> None:
    file = tmp_path / "s.json"
    done = run(
        bench_scaling, "--sweep", "1,2", "--server", upstream, "--inflight", "3", "--seconds",
        "0.5", "--repeats", "1", "--json", str(file), "--html", str(tmp_path / "s.html"), *QUICK,
    )  # fmt: skip
    came_through(done)
    found = json.loads(file.read_text())
    one, two = found["rows"]
    assert (one["ranks"], two["ranks"], two["inflight"]) == (1, 2, 6)
    assert two["tokens_per_s"]["value"] == pytest.approx(
        sum(each["tokens_per_s"]["value"] for each in two["each"]), rel=0.05
    )
    assert two["speedup"]["value"] > 0
    assert two["mpi"]["allreduce of 8 bytes"] > 0
    assert found["fits"] == []
    assert "4 are needed" in found["fits_why"]


def test_strong_scaling_shares_the_load_out(tmp_path: Path, upstream: str) -> None:
    file = tmp_path / "s.json"
    done = run(
        bench_scaling, "--server", upstream, "--mode", "strong", "--inflight", "5", "--seconds",
        "0.4", "--json", str(file), *QUICK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["rows"][0]["inflight"] == 5


def test_the_noop_server_gives_what_is_asked(tmp_path: Path) -> None:
    with noop.running() as address:
        done = run(
            bench_latency, "--server", address, "--inflight", "2", "--iters", "20", "--repeats",
            "1", "--json", str(tmp_path / "n.json"), *QUICK,
        )  # fmt: skip
    came_through(done)
    found = json.loads((tmp_path / "n.json").read_text())
    assert found["paths"]["gateway"]["outcomes"]["done"] == 20
    assert found["paths"]["gateway"]["tokens"] == 160


def point(n: int, rate: float, slots: int = 8) -> dict[str, Any]:
    return {
        "ranks": n, "servers": 1, "slots": slots, "inflight": 4 * n, "problems": [], "cautions": [],
        "tokens_per_s": {"value": rate, "low": rate - 1, "high": rate + 1},
        "imbalance": 0.0, "metrics": {}, "each": [{"cpu_share": 0.9}], "mpi": {}, "library": "",
    }  # fmt: skip


def test_a_curve_has_speedups_fits_and_its_limit() -> None:
    whole: dict[str, Any] = {"problems": [], "cautions": []}
    points = [point(n, 100 / (0.1 + 0.9 / n)) for n in (1, 2, 4, 8) for _ in range(3)]
    curve.fill(whole, points, "ranks")
    assert [row["size"] for row in whole["rows"]] == [1, 2, 4, 8]
    assert whole["rows"][1]["speedup"]["value"] == pytest.approx(1 / (0.1 + 0.45))
    assert whole["rows"][3]["efficiency"] == pytest.approx(1 / (0.1 + 0.9 / 8) / 8)
    assert all(row["karp_flatt"] == pytest.approx(0.1) for row in whole["rows"][1:])
    amdahl = next(each for each in whole["fits"] if each["law"] == "Amdahl")
    assert amdahl["parameters"]["serial share"]["value"] == pytest.approx(0.1, rel=1e-3)
    assert any(
        "from 4 ranks on, more is asked than there are slots" in c for c in whole["cautions"]
    )


def test_an_objective_is_kept_or_not() -> None:
    record = Record(0, 1.0, sent=1.0, ended=2.0, outcome=Outcome.DONE, tokens=3)
    record.chunks.extend([1.4, 1.5, 1.6])
    assert keeps(record, {"ttft": 0.5, "tpot": 0.11, "latency": 1.1})
    assert not keeps(record, {"ttft": 0.3})
    assert not keeps(record, {"tpot": 0.05})
    record.outcome = Outcome.TIMEOUT
    assert not keeps(record, {"ttft": 9.0})


@pytest.mark.parametrize(
    ("text", "value"), [("500ms", 0.5), ("2s", 2.0), ("1.5m", 90.0), ("3", 3.0)]
)
def test_times(text: str, value: float) -> None:
    assert options.seconds(text) == value


@pytest.mark.parametrize("text", ["", "ms", "-1s", "1h", "1 s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        options.seconds(text)


def test_objectives_and_lists() -> None:
    assert options.slo("ttft=500ms,tpot=50ms") == {"ttft": 0.5, "tpot": 0.05}
    assert options.numbers("1,2,4.5") == [1.0, 2.0, 4.5]
    for wrong in ("p99=1s", "ttft", "ttft=x"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.slo(wrong)
    for wrong in ("", "2,1", "0,1", "x", "1,1"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.numbers(wrong)


@pytest.mark.parametrize("tool", [bench_latency, bench_throughput, bench_scaling])
def test_help_shows_the_prototypes_flags(tool: Any) -> None:
    done = run(tool, "--help")
    assert done.returncode == 0
    for flag in ("--server", "--iters", "--max-tokens", "--n_predict", "--inflight", "--cuda-work",
                 "--cuda-iters", "--cuda-post", "examples:", "exit codes:"):  # fmt: skip
        assert flag in done.stdout
