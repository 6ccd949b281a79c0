"""A hand-over waits for what is quick, for a bounded time, and seldom for what is slow."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from llcuda_net.storage.journal.segments import Segment
from llcuda_net.storage.journal.threads import write_thread
from llcuda_net.storage.journal.threads.write_thread import Chunk, WriteThread
from tests.support.storage.power_cut import SimulatedFiles


class Finished:
    """The queue of what is written, as of a disk that is quick, or slow, at will.

    Attributes:
        waits: how often somebody waited for a chunk.
    """

    def __init__(self) -> None:
        self.quick = True
        self.waits = 0
        self.late: list[Any] = []
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get(self, timeout: float) -> Any:
        assert timeout == write_thread.PATIENCE
        self.waits += 1
        if self.quick:
            return "quick"
        raise queue.Empty

    def finish(self) -> None:
        self._ready.put("late")

    def empty(self) -> bool:
        return self._ready.empty()

    def get_nowait(self) -> Any:
        return self._ready.get_nowait()


@pytest.fixture
def chunk() -> Chunk:
    return Chunk(Segment(1, 1000, 0, 0), bytearray(b"x"), 1)


@pytest.fixture
def finished() -> Finished:
    return Finished()


@pytest.fixture
def thread(finished: Finished) -> WriteThread:
    out = WriteThread(SimulatedFiles())
    out._serving = True
    out._finished = finished  # type: ignore[assignment]
    return out


def test_what_is_quick_is_waited_for_each_time(
    thread: WriteThread, finished: Finished, chunk: Chunk
) -> None:
    for _ in range(1000):
        assert thread.hand_over(chunk) == "quick"  # type: ignore[comparison-overlap]
    assert finished.waits == 1000


def test_a_slow_disk_is_seldom_waited_for(
    thread: WriteThread, finished: Finished, chunk: Chunk
) -> None:
    finished.quick = False
    for _ in range(10_000):
        assert thread.hand_over(chunk) is None
        finished.finish()
        assert thread.take() == "late"  # type: ignore[comparison-overlap]
    # 1, 3, 7, … and then MOST_SKIPPED hand-overs are not waited for after each one that is.
    assert finished.waits <= 10 + 10_000 // write_thread.MOST_SKIPPED


def test_a_disk_that_has_caught_up_is_waited_for_again(
    thread: WriteThread, finished: Finished, chunk: Chunk
) -> None:
    finished.quick = False
    assert thread.hand_over(chunk) is None
    finished.finish()
    assert thread.take() is not None
    finished.quick = True
    assert thread.hand_over(chunk) is None  # it was slow just now
    finished.finish()
    assert thread.take() is not None
    outcomes: list[Any] = [thread.hand_over(chunk) for _ in range(3)]
    assert outcomes == ["quick"] * 3
    assert finished.waits == 4


def test_what_is_finished_while_the_patience_ends_is_not_lost(
    thread: WriteThread, finished: Finished, chunk: Chunk
) -> None:
    finished.quick = False
    finished.finish()
    assert thread.hand_over(chunk) == "late"  # type: ignore[comparison-overlap]
    assert thread.take() is None
