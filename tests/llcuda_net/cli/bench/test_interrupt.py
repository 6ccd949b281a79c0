"""Ctrl-C keeps what is complete; a second one ends at once, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.batch.targets.interface import About
from llcuda_net.bench.histogram import Histogram
from llcuda_net.bench.runs import latency, sweep, throughput
from llcuda_net.bench.runs.once import once
from tests.llcuda_net.cli.bench.conftest import QUICK, Bench

#: A measurement whose child takes no notice, and which waits for it.
_STUBBORN = """
import signal, subprocess, sys, trio
from llcuda_net.cli.bench.interrupt import measured
from llcuda_net.cli.progress import Ticker

async def run():
    child = subprocess.Popen(["sh", "-c", "trap '' INT TERM; sleep 1000 & echo $$ $!; wait"])
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(child.wait)
    await trio.sleep_forever()

try:
    measured(run, Ticker())
except KeyboardInterrupt:
    sys.exit("ended at once")
"""


def interrupted(call: Callable[..., Any], after: int) -> Callable[..., Any]:
    """The call, which Ctrl-C ends from the one after `after` on."""
    calls: list[None] = []

    async def replaced(*arguments: Any, **more: Any) -> Any:
        calls.append(None)
        if len(calls) > after:
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()
        return await call(*arguments, **more)

    return replaced


def test_finished_repeats_of_latency_are_kept(
    tmp_path: Path, upstream: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "once", interrupted(once, 3))  # a rehearsal, two repeats
    page = tmp_path / "a.html"
    code, found, said = bench(
        "latency", "--target", upstream, "--rate", "60", "--seconds", "0.3", "--repeats", "4",
        "--html", str(page), *QUICK,
    )  # fmt: skip
    assert code == 130, said
    assert "interrupted; what is complete is kept" in said
    complete = len(found["rates"])
    assert complete in (1, 2)  # one, where a run that is not measured comes before them
    assert found["cautions"][0] == f"interrupted by Ctrl-C: {complete} of 4 runs are complete"
    assert "note: interrupted by Ctrl-C" in said
    assert "interrupted by Ctrl-C" in page.read_text()
    assert next(iter(found["paths"].values()))["outcomes"]["done"] > 0


@pytest.mark.parametrize(
    ("rates", "after", "loads", "offered", "caution"),
    [
        ("auto", 3, [1, 2, 4], [], "3 runs of a load are complete"),
        ("none", 1, [1], [], "1 of 6 runs of a load are complete"),
        ("20", 7, [1, 2, 4], [20], "7 of 8 runs of a load are complete"),
    ],
)
def test_finished_rounds_of_throughput_are_kept(
    upstream: str,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    rates: str,
    after: int,
    loads: list[float],
    offered: list[float],
    caution: str,
) -> None:
    monkeypatch.setattr(throughput, "once", interrupted(once, after))
    code, found, said = bench(
        "throughput", "--target", upstream, "--concurrency", "1,2,4", "--rates", rates,
        "--seconds", "0.3", "--rounds", "2", *QUICK,
    )  # fmt: skip
    assert code == 130, said
    assert [row["load"] for row in found["concurrency"]] == loads
    assert [row["load"] for row in found["rates"]] == offered
    assert found["cautions"][0] == f"interrupted by Ctrl-C: {caution}"


@pytest.mark.parametrize("work", ["requests", "search"])
def test_finished_points_of_scaling_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    async def point(ranks: int, *arguments: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        rate = {"value": 10.0 * ranks, "low": 1.0, "high": 99.0}
        rank: dict[str, Any] = {"host": "host-1", "cores": 2, "cpu_share": 0.1, "problems": []}
        found: dict[str, Any] = {"ranks": ranks, "hosts": 1, "problems": [], "cautions": []}
        found |= {"mpi": {}, "library": ""}
        metrics = {"histogram": Histogram().encode()}
        if work == "requests":
            rank |= {"server": "a:1", "about": About("m", None, "v").as_dict()}
            found |= {"slots": None, "inflight": 8, "imbalance": 0.0, "servers": 1}
            found |= {"tokens_per_s": rate, "metrics": {"ttft": metrics}}
        else:
            rank |= {"device": "", "rows": 9}
            found |= {"vectors": 9, "vectors_per_s": rate, "metrics": {"search": metrics}}
        return {**found, "each": [{**rank, "rank": number} for number in range(ranks)]}

    monkeypatch.setattr(sweep, "run", interrupted(point, 3))
    code, found, said = bench("scaling", "--sweep", "1,2", "--work", work)
    assert code == 130, said
    assert [(row["size"], row["runs"]) for row in found["rows"]] == [(1, 1), (2, 2)]
    assert found["cautions"][0] == "interrupted by Ctrl-C: 3 of 6 runs of a size are complete"


def test_where_nothing_is_complete_nothing_is_written(
    upstream: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "once", interrupted(once, 0))
    code, found, said = bench("latency", "--target", upstream, "--seconds", "0.3", *QUICK)
    assert (code, found) == (130, {})
    assert said.splitlines()[-1] == "nothing was complete"


def test_a_second_one_kills_what_is_waited_for() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            children = [int(pid) for pid in process.stdout.readline().split()]
            assert len(children) == 2
            process.send_signal(signal.SIGINT)
            assert "Ctrl-C again ends at once" in process.stderr.readline()
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == "ended at once\n"
            assert process.wait(120) == 1
            assert process.stdout.read() == ""  # closed by all who had it
        finally:
            process.kill()
