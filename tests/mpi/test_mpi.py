"""Real ranks: the same checks at any -n, and a batch that is killed in every way and goes on.

These start mpirun, which the extra `mpi` (and so `dev`) installs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.bench.runs import mpirun
from tests.support.processes import running_server
from tools import synthetic_upstream

ROOT = Path(__file__).resolve().parents[2]
CHECKS = [sys.executable, "-m", "tests.mpi.checks"]
PATIENCE = 120.0


@pytest.fixture(scope="module", autouse=True)
def sessions() -> Iterator[None]:
    """A folder for what killed mpiruns leave behind."""
    with tempfile.TemporaryDirectory(prefix="mpi", ignore_cleanup_errors=True) as folder:
        global FOLDER
        FOLDER = folder
        yield


FOLDER = ""


def environment() -> dict[str, str]:
    found = mpirun.environment(FOLDER)
    kept = {k: v for k, v in found.items() if not k.startswith("LLCUDA_")}
    path = ":".join(str(ROOT / part) for part in ("", "protocol", "kernels"))
    return {**kept, "NO_COLOR": "1", "PYTHONPATH": path}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=environment(), cwd=ROOT
    )


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_checks_hold_on_any_number_of_ranks(ranks: int) -> None:
    done = run(mpirun.command(ranks, [*CHECKS, str(ranks)]))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held") == ranks


def test_the_checks_hold_alone() -> None:
    done = run([*CHECKS, "1"])
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_error_on_one_rank_ends_all() -> None:
    done = run(mpirun.command(3, [*CHECKS, "3", "fail"]))
    assert done.returncode != 0
    assert "on purpose" in done.stderr


# -- batches --------------------------------------------------------------------------------------


class Batch:
    """A command of llcuda-mpi, to be started, killed and started again."""

    def __init__(
        self, folder: Path, server: str, count: int, *options: str, ranks: int = 3
    ) -> None:
        self.input, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self.input.write_text("".join(f'{{"raw": "prompt {i}"}}\n' for i in range(count)))
        self.log = folder / "log"
        program = [sys.executable, "-m", "llcuda_net.cli.batch.mpi", "--input", str(self.input)]
        program += ["--output", str(self.output), "--server", server, "--n-predict", "8"]
        self.command = mpirun.command(ranks, [*program, *options])

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment(), cwd=ROOT
            )

    def finish(self) -> int:
        return self.start().wait(PATIENCE)

    def lines(self) -> int:
        """Results that are written, or set aside."""
        files = (self.output, self.output.with_name("out.jsonl.waiting"))
        return sum(file.read_bytes().count(b"\n") for file in files if file.exists())

    def wait_for(self, process: subprocess.Popen[bytes], lines: int) -> bool:
        """Until so many are there; False if the job is over before."""
        end = time.monotonic() + PATIENCE
        while self.lines() < lines:
            assert time.monotonic() < end, self.log.read_text()
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        return True

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text("utf-8").splitlines()]


def ranks_of(pid: int) -> list[int]:
    """The processes that mpirun has started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += [int(child), *ranks_of(int(child))]
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with synthetic_upstream.running("--rate", "400", "--slots", "64", "--ctx", "100000") as url:
        yield url


@pytest.mark.parametrize(("ranks", "order"), [(1, "done"), (2, "input"), (4, "input")])
def test_a_batch_over_ranks(tmp_path: Path, upstream: str, ranks: int, order: str) -> None:
    batch = Batch(tmp_path, upstream, 60, "--order", order, "--json", ranks=ranks)
    assert batch.finish() == 0, batch.log.read_text()
    found = batch.results()
    assert sorted(one["line"] for one in found) == list(range(1, 61))
    if order == "input":
        assert [one["line"] for one in found] == list(range(1, 61))
    # A rank that is slow to start may find nothing left to do.
    assert {one["client"]["rank"] for one in found} <= set(range(ranks))
    assert all(one["usage"]["completion_tokens"] == 8 for one in found)
    (told,) = [line for line in batch.log.read_text().splitlines() if line.startswith("{")]
    report = json.loads(told)
    assert (report["ranks"], report["written"], report["tokens"]) == (ranks, 60, 480)
    # Merged over the ranks it is what all results together say.
    latencies = sorted(one["client"]["latency_ms"] for one in found)
    assert report["latency_ms"]["p50"] == pytest.approx(latencies[29], rel=0.002, abs=0.002)
    assert 0 < report["efficiency"] <= 1


def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, upstream: str
) -> None:
    batch = Batch(tmp_path, upstream, 200, "--inflight", "2")
    process = batch.start()
    assert batch.wait_for(process, 20)
    kill(ranks_of(process.pid)[-1])
    assert process.wait(PATIENCE) != 0
    assert batch.lines() < 200
    assert batch.finish() == 0, batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 201))


def test_a_rank_that_cannot_connect_is_told_and_the_rest_goes_on(
    tmp_path: Path, upstream: str
) -> None:
    batch = Batch(tmp_path, f"{upstream},http://127.0.0.1:1", 30, ranks=2)
    assert batch.finish() == 3
    assert "rank 1: the upstream cannot be reached" in batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 31))


def test_wrong_files_are_told_in_one_line(tmp_path: Path, upstream: str) -> None:
    batch = Batch(tmp_path, upstream, 3, ranks=2)
    batch.input.unlink()
    assert batch.finish() == 2
    said = batch.log.read_text()
    assert "cannot read" in said
    assert "Traceback" not in said


def test_a_server_makes_no_answer_twice_however_often_the_job_is_killed(tmp_path: Path) -> None:
    """The keys: what ran when the job was killed is joined, and what was done is read again."""
    with (
        synthetic_upstream.running("--rate", "100", "--slots", "8", "--ctx", "100000") as url,
        running_server("--upstream", url, "--slots", "8") as server,
    ):
        batch = Batch(tmp_path, server.address, 60, "--inflight", "4", ranks=2)
        for _ in range(3):
            process = batch.start()
            assert batch.wait_for(process, batch.lines() + 5), batch.log.read_text()
            for pid in [process.pid, *ranks_of(process.pid)]:
                kill(pid)
            process.wait(PATIENCE)
        assert batch.finish() == 0, batch.log.read_text()
        with urllib.request.urlopen(f"{url}/synthetic", timeout=30) as reply:
            made = json.load(reply)["tokens"]
    probed = 1  # the token by which the server knows the model
    found = batch.results()
    assert [one["line"] for one in found] == list(range(1, 61))
    assert len({one["generation"] for one in found}) == 60
    assert made == probed + 60 * 8


def test_a_job_that_is_told_to_stop_says_so_and_goes_on(tmp_path: Path, upstream: str) -> None:
    batch = Batch(tmp_path, upstream, 200, "--inflight", "2", ranks=1)
    process = batch.start()
    assert batch.wait_for(process, 10)
    (rank,) = (pid for pid in ranks_of(process.pid))
    os.kill(rank, signal.SIGTERM)
    assert process.wait(PATIENCE) != 0
    assert "Traceback" not in batch.log.read_text()
    assert batch.finish() == 0, batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 201))


def test_killed_20_times_in_1000_prompts(tmp_path: Path, upstream: str) -> None:
    """kill -9 of mpirun and of all ranks at once, 20 times: nothing twice, nothing lost."""
    batch = Batch(tmp_path, upstream, 1000, "--inflight", "6", ranks=2)
    rng = random.Random(1)
    kills = 0
    while kills < 20:
        process = batch.start()
        if not batch.wait_for(process, batch.lines() + rng.randint(1, 35)):
            raise AssertionError(f"over after {kills} kills: {batch.log.read_text()}")
        for pid in [process.pid, *ranks_of(process.pid)]:
            kill(pid)
        process.wait(PATIENCE)
        kills += 1
    assert batch.finish() == 0, batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 1001))
    assert not any("error" in one for one in batch.results())
    assert not batch.output.with_name("out.jsonl.waiting").exists()
