"""The overhead benchmark measures what it says, on runs too short to say how much.

Nothing here depends on how fast the machine is: a run that was too slow is allowed to say so.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import bench_overhead
from tools.load.streams import HttpConnection, LoadError, Recorder
from tools.overhead import measurement, processes, profiling, report, results
from tools.overhead.stats import added_median, percentile, spread
from tools.overhead.usage import Usage

SCRIPT = [sys.executable, bench_overhead.__file__]
#: Paths to the server, in their order.
KINDS = ("llcuda", "http", "responses")
SHORT = ["--streams", "4", "--seconds", "0.1", "--warmup", "0.05", "--repeats", "1"]
SERVER = Path(sys.executable).with_name("llcuda-server")
PLAN = measurement.Plan(streams=4, rate=50.0, seconds=0.2, warmup=0.1, probing=0.1, seed=1)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def lost(run_problems: list[str]) -> list[str]:
    """The problems that a slow machine does not excuse."""
    slow = ("tokens/s arrived", "could not keep up", "a busy machine")
    return [p for p in run_problems if not any(excuse in p for excuse in slow)]


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
    has_nginx = processes.nginx_path() is not None
    for seconds in ("0.1", "1", "10"):  # as short as this machine allows today
        command = [*SCRIPT, *SHORT, "--json", str(file), "--seconds", seconds, "--http"]
        command.append("--responses")
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert "aims" in done.stdout
        assert ("nginx is not there" in done.stderr) is not has_nginx
        document = json.loads(file.read_text())
        if all(run.get("tokens") for run in document["runs"]):
            break
    assert document["schema"] == results.SCHEMA
    assert document["seed"] == 1
    assert document["machine"]["python"]
    assert document["settings"]["cores"]
    own = [f"{kind}-{level}" for level in ("memory", "disk") for kind in KINDS]
    paths = ["direct", *(["nginx"] if has_nginx else []), *own]
    for arrivals in results.ARRIVALS:
        of = dict.fromkeys(r["path"] for r in document["runs"] if r["arrivals"] == arrivals)
        assert list(of) == paths
    for run in document["runs"]:
        assert lost(run["problems"]) == [], done.stderr
        assert run["tokens"] > 0
        if run["path"].startswith("llcuda") and run["arrivals"] != "saturated":
            assert run["wakeups_per_step"] >= run["main_wakeups_per_step"] > 0
    if document["valid"]:
        assert "CPU a token" in done.stdout
        figures = {each["figure"] for each in document["comparisons"]}
        assert figures >= {"cpu_us_beyond_memory", "cpu_us_beyond_llcuda"}
        assert "cpu_us_beyond_http" in figures
        assert len(document["aims"]) == len(results.AIMS)


@pytest.mark.skipif(not SERVER.exists(), reason="llcuda-server is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_process(number: signal.Signals) -> None:
    with subprocess.Popen([*SCRIPT, "--streams", "2"], stderr=subprocess.PIPE) as process:
        while len(begun := children(process.pid)) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=300)
        assert process.returncode == 128 + number
    assert len(begun) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in begun)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--streams", "0"],
        ["--rate", "0"],
        ["--seconds", "inf"],
        ["--peer", "unknown"],
        ["--durability", "memory,none"],
        ["--arrivals", ""],
        ["--against", "a-b=/bin/false"],
    ],
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


def test_the_added_median_lies_in_its_interval() -> None:
    chance = random.Random(1)
    pairs = [
        ([chance.gauss(3 + drift, 0.1) for _ in range(50)], [1 + drift for _ in range(50)])
        for drift in (0.0, 5.0, -0.5)
    ]
    found = added_median([*pairs, ([1.0], [2.0])])  # one value has no median
    assert found is not None
    assert found.count == 3
    assert found.low is not None is not found.high
    assert 1.9 < found.low < found.median < found.high < 2.1
    assert added_median([]) is None


def made(path: str, repeat: int, cpu: float, *problems: str) -> measurement.Run:
    figures: dict[str, float | None] = {"delay_ms_p50": cpu / 10, "cpu_us_per_token": cpu}
    run = measurement.Run(path, "synchronised", repeat, figures, list(problems))
    run.ttft_ms = [cpu / 5] * 40
    return run


def test_figures_are_beside_those_of_the_same_repeat() -> None:
    runs = [
        made("direct", 0, 10.0),
        made("nginx", 0, 10.0),
        made("llcuda-memory", 0, 20.0),
        made("llcuda-disk", 0, 25.0),
        made("direct", 1, 50.0),
        made("nginx", 1, 50.0),
        made("llcuda-memory", 1, 90.0),
        made("llcuda-disk", 1, 92.0),
        made("direct", 2, 10.0, "a token was lost"),
        made("llcuda-memory", 2, 1.0),
        made("llcuda-disk", 2, 100.0),
    ]
    document = results.document(runs, {})
    figures = document["summary"]["synchronised"]["llcuda-disk"]
    assert figures["cpu_times_nginx"]["median"] == (2.5 + 1.84) / 2
    assert figures["cpu_us_beyond_memory"]["median"] == 5.0
    assert figures["cpu_us_beyond_memory"]["most"] == 99.0
    assert figures["added_delay_ms_p50"]["most"] == pytest.approx(4.2)
    assert figures["added_ttft_ms_p50"]["median"] == pytest.approx((3.0 + 8.4) / 2)
    assert "added_delay_ms_p50" not in document["summary"]["synchronised"]["direct"]
    reached = {aim["what"]: aim["reached"] for aim in document["aims"]}
    assert reached["llcuda-disk, synchronised: cpu_times_nginx"] is False
    assert reached["llcuda-disk, synchronised: main_wakeups_per_step"] is None
    assert document["valid"] is False
    assert "NOT reached" in report.table(document)


def test_a_run_that_others_disturbed_is_valid_at_another_try() -> None:
    busy = made("nginx", 0, 99.0, "a busy machine: other processes took 1.00 cores")
    assert results.document([busy], {})["valid"] is False
    document = results.document([busy, made("nginx", 0, 10.0)], {})
    assert document["valid"] is True
    assert document["summary"]["synchronised"]["nginx"]["cpu_us_per_token"]["most"] == 10.0


def test_servers_are_compared_at_the_same_level() -> None:
    runs = [
        made("older-memory", 0, 30.0),
        made("llcuda-memory", 0, 15.0),
        made("http-memory", 0, 16.0),
        made("responses-memory", 0, 18.0),
        made("older-disk", 0, 40.0),
        made("llcuda-disk", 0, 10.0),
    ]
    found = {(each.path, each.name): each.values for each in results.compare(runs)}
    assert found == {
        ("llcuda-memory", "cpu_times_older"): (0.5,),
        ("llcuda-disk", "cpu_times_older"): (0.25,),
        ("http-memory", "cpu_us_beyond_llcuda"): (1.0,),
        ("responses-memory", "cpu_us_beyond_http"): (2.0,),
        ("older-disk", "cpu_us_beyond_memory"): (10.0,),
        ("llcuda-disk", "cpu_us_beyond_memory"): (-5.0,),
    }
    assert "times older" in report.table(results.document(runs, {}))
    assert bench_overhead.parser().parse_args(["--against", "x"]).against == [("against", "x")]


def test_the_tables_as_markdown() -> None:
    runs = [made("nginx", 0, 10.0), made("llcuda-memory", 0, 20.0), made("llcuda-memory", 1, 30.0)]
    about = {
        "command": ["bench"],
        "settings": dict.fromkeys(("streams", "repeats", "cores", "rate", "seconds"), 1),
    }
    text = report.markdown(results.document(runs, about))
    assert "| | nginx | llcuda, nothing kept |" in text
    assert "| CPU a token, µs | 10 | 25 (20 to 30) |" in text
    assert "| times nginx | - | 2 |" in text
    assert "us" not in text.split("```")[2]


def test_wake_ups_are_of_threads_that_still_run() -> None:
    before = Usage(switches={1: 10, 2: 500, 3: 5}, pids=frozenset({1}))
    after = Usage(switches={1: 13, 3: 9, 4: 2}, pids=frozenset({1}))
    assert after.wakeups(before) == 3 + 4 + 2
    assert after.wakeups(before, main=True) == 3
    here = Usage.of(os.getpid())
    assert here.cpu > 0
    assert here.main_cpu > 0
    assert here.peak_bytes > 2**20
    assert os.getpid() in here.switches


@pytest.mark.parametrize(
    ("cores", "load", "upstream", "measured"),
    [({4}, None, None, None), ({4, 5}, {4}, {4}, {5}), ({1, 2, 3, 9}, {1}, {2}, {3, 9})],
)
def test_what_is_measured_has_cores_of_its_own(
    cores: set[int],
    load: set[int] | None,
    upstream: set[int] | None,
    measured: set[int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    found = bench_overhead.Cores.apart()
    assert (found.load, found.upstream, found.measured) == (load, upstream, measured)
    assert str(found).endswith(".")


def test_a_profile_leaves_out_the_waiting_and_other_threads() -> None:
    main = "thread (7): MainThread;main;run"
    stacks = (
        f"{main};get_events (trio/_core/_io_epoll.py:243) 90\n{main};read 3\n{main} 1\n"
        "thread (8): Thread-1;serve 50\n"
    )
    assert profiling.shares(stacks) == (4, [("read", 0.75, 0.75), ("run", 0.25, 1.0)])


def test_a_profile_of_few_samples_tells_no_shares(tmp_path: Path) -> None:
    file = tmp_path / "stacks"
    file.write_text("thread (7): MainThread;read 99\n")
    assert profiling.table(file).startswith("only 99 samples")
    file.write_text("thread (7): MainThread;read 75\nthread (7): MainThread;write 25\n")
    assert " 75.0%" in profiling.table(file)
