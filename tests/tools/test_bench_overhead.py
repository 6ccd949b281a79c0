"""The overhead benchmark measures what it says, on runs too short to say how much.

Nothing here depends on how fast the machine is: a run that was too slow is allowed to say so.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import bench_overhead
from tools.load.streams import HttpConnection, LoadError, Recorder
from tools.overhead import measurement, processes, profiling, results
from tools.overhead.stats import percentile, spread

SCRIPT = [sys.executable, bench_overhead.__file__]
SHORT = ["--streams", "4", "--seconds", "0.1", "--warmup", "0.05", "--repeats", "1"]
SERVER = Path(sys.executable).with_name("llcuda-server")
PLAN = measurement.Plan(streams=4, rate=50.0, seconds=0.2, warmup=0.1, probing=0.1, seed=1)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def lost(run_problems: list[str]) -> list[str]:
    """The problems that a slow machine does not excuse."""
    return [p for p in run_problems if "tokens/s arrived" not in p and "could not keep up" not in p]


@pytest.fixture(scope="module")
def direct() -> Iterator[measurement.Path]:
    options = ("--rate", "50", "--slots", "5", "--ctx", "100000", "--stamp")
    with processes.synthetic_upstream(*options) as upstream:
        yield measurement.Path("direct", upstream.address, HttpConnection, upstream, None)


def test_a_paced_run_gets_every_token(direct: measurement.Path) -> None:
    run = measurement.paced(direct, PLAN, "synchronised", 0)
    assert lost(run.problems) == []
    assert run.figures["tokens"]
    assert len(run.delays_ms) == run.figures["tokens"]
    assert min(run.delays_ms) > 0
    assert run.ttft_ms
    assert min(run.ttft_ms) > 0


@pytest.mark.parametrize("fault", ["die:2", "no-final:2", "bad-chunk:1", "http:500", "eos:3"])
def test_lost_tokens_are_noticed(direct: measurement.Path, fault: str) -> None:
    connection = HttpConnection(direct.address, Recorder(), stamped=True)
    connection.sock.setblocking(True)
    request = connection.ask(f"hello [[{fault}]]", 5)
    with pytest.raises(LoadError):
        while not request.ended:
            connection.ready()
    connection.close()


def test_a_foreign_token_is_noticed(direct: measurement.Path) -> None:
    connection = HttpConnection(direct.address, Recorder(), stamped=True)
    connection.sock.setblocking(True)
    next(connection.ask("hello", 3).expected)
    try:
        with pytest.raises(LoadError, match="token 0 is"):
            for _ in range(100):  # the head may come alone
                connection.ready()
    finally:
        connection.close()


@pytest.mark.skipif(not SERVER.exists(), reason="llcuda-server is not installed")
def test_the_whole_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "overhead.json"
    peers = ["--peer", "nginx"] if processes.nginx_path() else []
    for seconds in ("0.1", "1", "10"):  # as short as this machine allows today
        command = [*SCRIPT, *SHORT, *peers, "--json", str(file), "--seconds", seconds]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "CPU a token" in done.stdout
        document = json.loads(file.read_text())
        if not any("no token" in told for run in document["runs"] for told in run["problems"]):
            break
    assert document["schema"] == results.SCHEMA
    assert document["seed"] == 1
    assert document["machine"]["python"]
    paths = ["direct", "nginx", "llcuda"] if peers else ["direct", "llcuda"]
    assert [run["path"] for run in document["runs"]] == paths * 3
    for run in document["runs"]:
        assert lost(run["problems"]) == [], done.stderr
        assert run["tokens"] > 0
    for name in ("cpu_us_per_token", "saturated_tokens_per_s"):
        assert document[name] is None or document[name] > 0
    assert "added_ttft_ms_p50" in document
    assert set(document["peers"]) == set(paths) - {"direct", "llcuda"}
    assert set(document["aims"]) == set(results.AIMS)


@pytest.mark.skipif(not SERVER.exists(), reason="llcuda-server is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process(number: signal.Signals) -> None:
    with subprocess.Popen([*SCRIPT, "--streams", "2"], stderr=subprocess.PIPE) as process:
        while len(begun := children(process.pid)) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=300)
        assert process.returncode == 128 + number
    assert len(begun) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in begun)


@pytest.mark.parametrize(
    "wrong", [["--streams", "0"], ["--rate", "0"], ["--seconds", "inf"], ["--peer", "unknown"]]
)
def test_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench_overhead.main(wrong)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_server_that_does_not_start_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert bench_overhead.main([*SHORT, "--server", "/nonexistent"]) == 2
        assert bench_overhead.main([*SHORT, "--server", "false"]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "llcuda-server" in capsys.readouterr().err


def test_percentiles_only_where_the_sample_supports_them() -> None:
    assert percentile([1.0] * 19, 0.5) is None
    assert percentile([float(i) for i in range(20)], 0.5) == 9.0
    assert percentile([1.0] * 999, 0.99) is None
    assert percentile([float(i) for i in range(1000)], 0.99) == 989.0


def test_spread() -> None:
    assert spread([None]) is None
    found = spread([3.0, None, 1.0, 10.0])
    assert found is not None
    assert (found.median, found.least, found.most, found.count) == (3.0, 1.0, 10.0, 3)
    even = spread([1.0, 2.0])
    assert even is not None
    assert even.median == 1.5


def test_what_is_added_is_against_the_direct_run_of_the_same_repeat() -> None:
    def run(path: str, repeat: int, ttft: float, *problems: str) -> measurement.Run:
        figures: dict[str, float | None] = {"ttft_ms_p50": ttft, "cpu_us_per_token": 10 * ttft}
        return measurement.Run(path, "synchronised", repeat, figures, list(problems))

    runs = [
        run("direct", 0, 1.0),
        run("llcuda", 0, 2.0),
        run("direct", 1, 5.0),
        run("llcuda", 1, 6.5),
        run("direct", 2, 1.0, "a token was lost"),
        run("llcuda", 2, 100.0),
        run("nginx", 0, 0.5),
    ]
    document = results.document(runs, {})
    assert document["added_ttft_ms_p50"] == 1.25
    assert document["cpu_us_per_token"] == 65.0
    assert document["peers"]["nginx"]["cpu_us_per_token"] == 5.0
    assert document["aims"]["cpu_times_nginx"]["reached"] is False
    assert document["aims"]["added_ttft_ms_p50"]["reached"] is True
    assert document["aims"]["saturated_tokens_per_s"]["reached"] is None
    assert document["valid"] is False
    assert "NOT reached" in results.table(document)


def test_a_profile_leaves_out_the_waiting() -> None:
    stacks = "main;run;get_events (trio/_core/_io_epoll.py:243) 90\nmain;run;read 3\nmain;run 1\n"
    assert profiling.shares(stacks) == (4, [("read", 0.75, 0.75), ("run", 0.25, 1.0)])


def test_a_profile_of_few_samples_tells_no_shares(tmp_path: Path) -> None:
    file = tmp_path / "stacks"
    file.write_text("main;read 99\n")
    assert profiling.table(file).startswith("only 99 samples")
    file.write_text("main;read 75\nmain 25\n")
    assert " 75.0%" in profiling.table(file)
