"""A whole job on one rank, with servers of which everything is known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch import job, report
from llcuda_net.batch.distributor import WorkQueue
from llcuda_net.batch.input import Input
from llcuda_net.batch.job import Done
from llcuda_net.batch.mpi import Communicator
from llcuda_net.batch.output import Output
from llcuda_net.batch.rank import FROM_ZERO, Rank, Tally, merge
from llcuda_net.errors import (
    ConfigError,
    ConnectError,
    ContextExceeded,
    InternalError,
    Overloaded,
)
from tests.support.bench_targets import Fake


class Bench:
    """A job in a folder, run as often as a test likes."""

    def __init__(self, folder: Path, count: int = 20) -> None:
        self.input, self.path = folder / "in.jsonl", folder / "out.jsonl"
        self.input.write_text("".join(f'{{"raw": "p{i}", "id": {i}}}\n' for i in range(count)))
        self.server = Fake()
        self.down_until = 0.0
        self.notes: list[str] = []
        self.opened = 0
        self.queue: WorkQueue
        self.given: Input

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        self.opened += 1
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.down_until:
            raise ConnectError("connection refused")
        yield self.server

    async def run(self, *, ordered: bool = True, retries: int = 2, patience: float = 30.0) -> Done:
        communicator = Communicator()
        server = "http://me:s3cret@fake:1"
        rank = Rank(communicator, server, self.open, inflight=3, patience=patience)
        with (
            closing(Input(self.input)) as self.given,
            closing(Output(self.path, ordered=ordered)) as output,
        ):
            self.queue = WorkQueue(self.given, output, {}, retries=retries)
            done = await job.run(
                communicator, rank, 3, self.queue, lambda state: None, self.notes.append
            )
        assert done is not None
        return done

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def failing(times: dict[int, int], error: Exception) -> Callable[[int], Exception | None]:
    left = dict(times)

    def fails(number: int) -> Exception | None:
        if left.get(number, 0) > 0:
            left[number] -= 1
            return error
        return None

    return fails


@pytest.mark.parametrize("ordered", [True, False])
async def test_every_line_is_asked_once_and_written_once(
    tmp_path: Path, autojump_clock: MockClock, ordered: bool
) -> None:
    bench = Bench(tmp_path)
    done = await bench.run(ordered=ordered)
    assert sorted(bench.server.prompts) == sorted(f"p{i}" for i in range(20))
    assert bench.server.most == 3
    found = bench.results()
    numbers = [one["line"] for one in found]
    assert sorted(numbers) == list(range(1, 21))
    if ordered:
        assert numbers == list(range(1, 21))
    assert all(one["id"] == one["line"] - 1 for one in found)
    first = found[0]
    assert first["text"] == "text"
    assert first["client"]["ttft_ms"] == pytest.approx(10.0)
    assert first["client"]["latency_ms"] == pytest.approx(14.0)
    assert first["tries"] == 1
    assert (done.tally.answers, done.tally.tokens) == (20, 100)
    again = await bench.run(ordered=ordered)
    assert bench.results() == found
    assert again.tally.answers == 0
    assert bench.queue.skipped == 20


async def test_a_failure_is_tried_again_and_then_written(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path)
    bench.server.fails = failing({3: 2, 5: 99}, InternalError("a bug", retry=True))
    await bench.run()
    found = {one["line"]: one for one in bench.results()}
    assert found[3]["tries"] == 3
    assert found[5]["error"] == {"code": "internal", "message": "a bug", "retry": True}
    assert found[5]["tries"] == 3
    assert bench.queue.problems == ["line 5: a bug (internal)"]
    bench.server.fails = lambda number: None
    await bench.run()
    assert [one["line"] for one in bench.results()] == list(range(1, 21))
    assert not any("error" in one for one in bench.results())


async def test_a_full_queue_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    """However often: it is no fault of the line."""
    bench = Bench(tmp_path, 3)
    busy = Overloaded("full", retry=True, retry_after=2.0)
    bench.server.fails = failing({2: 8}, busy)
    await bench.run(retries=0)
    assert not any("error" in one for one in bench.results())
    assert trio.current_time() >= 8 * 2.0


async def test_a_server_is_asked_again_when_it_wants_to_be(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path, 1)
    bench.server.fails = failing({1: 1}, Overloaded("full", retry=True, retry_after=50.0))
    await bench.run()
    assert trio.current_time() >= 50.0
    # And the output does not tell its user and password.
    assert bench.results()[0]["client"]["server"] == "http://fake:1"


async def test_an_error_that_stays_is_not_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path)
    bench.input.write_text('"a"\nnot json\n"b"\n')
    bench.server.fails = failing({3: 99}, ContextExceeded("too long"))
    await bench.run()
    first, second, third = bench.results()
    assert "error" not in first
    assert second["error"]["code"] == "bad_line"
    assert third["error"] == {"code": "context_exceeded", "message": "too long", "retry": False}
    asked = len(bench.server.prompts)
    await bench.run()
    assert len(bench.server.prompts) == asked
    assert bench.queue.skipped == 3


async def test_a_server_that_is_lost_is_found_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path)
    normal = bench.server.fails

    def lost(number: int) -> Exception | None:
        if number == 8:
            bench.down_until = trio.current_time() + 10
            bench.server.fails = normal
            return ConnectError("lost")
        return None

    bench.server.fails = lost
    done = await bench.run()
    assert [one["line"] for one in bench.results()] == list(range(1, 21))
    assert all("error" not in one for one in bench.results())
    assert not done.stranded
    assert done.without == 0
    assert len(bench.notes) == 2
    assert bench.notes[0].startswith("http://fake:1 was lost; ")
    assert bench.notes[1] == "the server is there again"


async def test_a_server_that_stays_away_ends_the_job_and_the_next_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path)

    def lost(number: int) -> Exception | None:
        if number >= 8:
            bench.down_until = float("inf")
            return ConnectError("lost")
        return None

    bench.server.fails = lost
    done = await bench.run(patience=5)
    assert done.stranded
    assert done.without == 1
    assert 5 <= trio.current_time() < 8
    written = [one["line"] for one in bench.results()]
    assert written == list(range(1, len(written) + 1))
    assert len(written) < 20
    bench.down_until, bench.server.fails = 0.0, lambda number: None
    done = await bench.run()
    assert not done.stranded
    assert [one["line"] for one in bench.results()] == list(range(1, 21))


async def test_no_server_at_all(tmp_path: Path, autojump_clock: MockClock) -> None:
    bench = Bench(tmp_path)
    bench.down_until = float("inf")
    done = await bench.run()
    assert done.stranded
    assert bench.opened == 1
    assert bench.notes == ["connection refused"]


async def test_a_rank_that_connects_when_all_is_done_ends_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As a slow rank of a short job does: it hears that there is no more while it connects."""
    bench = Bench(tmp_path)

    @asynccontextmanager
    async def slow() -> AsyncIterator[Any]:
        await trio.sleep(5)
        yield bench.server

    communicator = Communicator()
    rank = Rank(communicator, "fake:1", slow, inflight=1, patience=1)
    communicator.send(0, FROM_ZERO, None)
    with trio.fail_after(300):
        await rank.run()


async def test_the_output_of_another_input_is_refused(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench = Bench(tmp_path)
    await bench.run()
    before = bench.path.read_text()
    bench.input.write_text('"something else"\n')
    with pytest.raises(ConfigError, match="the results of another input"):
        await bench.run()
    assert bench.path.read_text() == before


async def test_the_report_says_what_was_done(tmp_path: Path, autojump_clock: MockClock) -> None:
    bench = Bench(tmp_path, 40)
    done = await bench.run()
    found = report.document(bench.queue, done, 1, 0, bench.given, {})
    assert (found["written"], found["tokens"], found["failed"]) == (40, 200, 0)
    assert found["latency_ms"]["p50"] == pytest.approx(14.0, rel=0.001)
    assert found["latency_ms"]["p90"] is None  # of 40 there are only four beyond it
    told = "\n".join(report.lines(found))
    assert "40 results written" in told
    assert "p99" not in told


def test_tallies_add_up() -> None:
    one, two = Tally(5, 1, 1.5), Tally(7, 2, 2.0)
    one.ttft.append(0.1)
    two.ttft.append(0.2)
    both = Tally.unpacked(merge(one.packed(), two.packed()))
    assert (both.tokens, both.answers, both.busy, both.ttft.tolist()) == (12, 3, 3.5, [0.1, 0.2])


def test_lines_of_a_rank_that_goes_are_given_to_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 4)
    output, given = Output(bench.path, ordered=False), Input(bench.input)
    queue = WorkQueue(given, output, {}, retries=0)
    taken = [queue.take(rank, 0.0) for rank in (0, 1, 1)]
    assert all(taken)
    assert queue.give_back(1, 0.0) == 2
    assert queue.give_back(1, 0.0) == 0
    again = [queue.take(0, 0.0) for _ in range(4)]
    assert [line.number for line in again if line] == [2, 3, 4]
    assert not queue.over
    for line in [taken[0], *again]:
        if line is not None:
            queue.finished({"line": line.number, "key": line.key})
            queue.finished({"line": line.number, "key": line.key})  # late: written once
    assert queue.over
    output.close()
    given.close()
    assert len(bench.results()) == 4
