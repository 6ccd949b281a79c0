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
from tests.support.processes import PATIENCE, running_server
from tests.support.steady import release
from tools import synthetic_upstream
from tools.synthetic.tokens import generation

ROOT = Path(__file__).resolve().parents[2]
CHECKS = [sys.executable, "-m", "tests.mpi.checks"]


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


@pytest.mark.parametrize("ranks", [1, 4])
def test_the_checks_hold_on_any_number_of_ranks(ranks: int) -> None:
    done = run(mpirun.command(ranks, [*CHECKS, str(ranks)]))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held") == ranks


def test_the_checks_hold_alone() -> None:
    done = run([*CHECKS, "1"])
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_error_on_one_rank_ends_all() -> None:
    done = run(mpirun.command(2, [*CHECKS, "2", "fail"]))
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

    def wait_for(self, process: subprocess.Popen[bytes], lines: int) -> None:
        """Until so many are there; fails if the job is over before."""
        end = time.monotonic() + PATIENCE
        while self.lines() < lines:
            assert time.monotonic() < end, self.log.read_text()
            assert process.poll() is None, self.log.read_text()
            time.sleep(0.005)

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


@contextlib.contextmanager
def held(upstream: str) -> Iterator[None]:
    """No job can end in here: the next request gets half of its answer and no more."""

    def fault(text: str | None) -> None:
        body = json.dumps({"fault": text}).encode()
        urllib.request.urlopen(f"{upstream}/synthetic", body, timeout=PATIENCE).close()

    fault("stall:4*1")
    try:
        yield
    finally:
        fault(None)


@pytest.mark.parametrize(("ranks", "order"), [(1, "done"), (3, "input")])
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
    assert 0 < report["occupancy"] <= 1
    assert report["version"] == 2
    assert report["base"] is None


def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, upstream: str
) -> None:
    batch = Batch(tmp_path, upstream, 100, "--inflight", "2")
    with held(upstream):
        process = batch.start()
        batch.wait_for(process, 20)
        kill(ranks_of(process.pid)[-1])
        assert process.wait(PATIENCE) != 0
    assert batch.lines() < 100
    assert batch.finish() == 0, batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 101))


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
        synthetic_upstream.running("--rate", "50", "--slots", "8", "--ctx", "100000") as url,
        running_server("--upstream", url) as server,
    ):
        batch = Batch(tmp_path, server.address, 100, "--inflight", "4", ranks=2)
        # One answer is held until the last try, so that none of those before comes to its end.
        prompts = batch.input.read_text()
        batch.input.write_text(prompts.replace("prompt 50", "prompt 50 [[hold:4]]"))
        for _ in range(2):
            process = batch.start()
            batch.wait_for(process, batch.lines() + 5)
            for pid in [process.pid, *ranks_of(process.pid)]:
                kill(pid)
            process.wait(PATIENCE)
        release(url)
        assert batch.finish() == 0, batch.log.read_text()
        with urllib.request.urlopen(f"{url}/synthetic", timeout=PATIENCE) as reply:
            made = json.load(reply)["tokens"]
    probed = 1  # the token by which the server knows the model
    found = batch.results()
    assert [one["line"] for one in found] == list(range(1, 101))
    assert len({one["generation"] for one in found}) == 100
    assert made == probed + 100 * 8


def test_a_job_that_is_told_to_stop_says_so_and_goes_on(tmp_path: Path, upstream: str) -> None:
    batch = Batch(tmp_path, upstream, 100, "--inflight", "2", ranks=1)
    with held(upstream):
        process = batch.start()
        batch.wait_for(process, 10)
        (rank,) = (pid for pid in ranks_of(process.pid))
        os.kill(rank, signal.SIGTERM)
        assert process.wait(PATIENCE) != 0
    assert "Traceback" not in batch.log.read_text()
    assert batch.finish() == 0, batch.log.read_text()
    assert [one["line"] for one in batch.results()] == list(range(1, 101))


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again(tmp_path: Path, upstream: str, kills: int) -> None:
    """kill -9 of mpirun and of all ranks at once: nothing twice, nothing lost, nothing else."""
    count = 50 * kills
    batch = Batch(tmp_path, upstream, count, "--inflight", "6", ranks=2)
    rng = random.Random(1)
    for _ in range(kills):
        with held(upstream):
            process = batch.start()
            batch.wait_for(process, min(batch.lines() + rng.randint(1, 35), count - 1))
            for pid in [process.pid, *ranks_of(process.pid)]:
                kill(pid)
            process.wait(PATIENCE)
    assert batch.lines() < count
    assert batch.finish() == 0, batch.log.read_text()
    found = batch.results()
    assert [one["line"] for one in found] == list(range(1, count + 1))
    assert [one["text"] for one in found] == [generation(f"prompt {i}", 8) for i in range(count)]
    assert not batch.output.with_name("out.jsonl.waiting").exists()
