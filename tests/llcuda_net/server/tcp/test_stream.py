"""How a stream ends, by how the generation ended that it reads."""

from __future__ import annotations

import pytest

from llcuda_net.errors import ShuttingDown, UpstreamError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.tcp.stream import ending
from llcuda_net.upstream.interface import CompletionEvent, Timings
from llcuda_protocol import Done, Error


def _make() -> Generation:
    return Generation("a prompt", None, {}, 60.0)


@pytest.mark.parametrize(
    ("stop_type", "word", "reason", "stop"),
    [
        ("eos", "", "stop", None),
        ("word", "END", "stop", "END"),
        ("limit", "", "length", None),
        ("none", "", "stop", None),
    ],
)
async def test_it_ends_with_its_reason_and_figures(
    stop_type: str, word: str, reason: str, stop: str | None
) -> None:
    generation = _make()
    generation.dispatched()
    generation.sent()
    generation.extend([CompletionEvent("a", [1])])
    generation.extend(
        [
            CompletionEvent(
                stop=True,
                stop_type=stop_type,
                stopping_word=word,
                tokens_predicted=9,
                tokens_evaluated=5,
                model="m",
                timings=Timings(cache_n=3, prompt_ms=2.0),
            )
        ]
    )
    generation.move(State.DONE)
    done = ending(generation, 7)
    assert isinstance(done, Done)
    assert (done.stream, done.reason, done.stop, done.model) == (7, reason, stop, "m")
    assert done.usage == {"prompt_tokens": 5, "cached_tokens": 3, "completion_tokens": 9}
    assert done.timings["prompt"] == 2.0
    assert all(value >= 0 for value in done.timings.values())
    assert "template" not in done.timings


async def test_cancelled_failed_and_handed_back() -> None:
    cancelled = _make()
    cancelled.dispatched()
    cancelled.extend([CompletionEvent("a"), CompletionEvent("b")])
    cancelled.cancel()
    cancelled.end(State.CANCELLED, None)
    done = ending(cancelled, 1)
    assert isinstance(done, Done)
    assert (done.reason, done.usage) == ("cancelled", {"completion_tokens": 2})

    failed = _make()
    broke = UpstreamError("it broke", retry=True, retry_after=2.0)
    failed.end(State.FAILED, broke)
    assert ending(failed, 3) == Error(3, "upstream_error", "it broke", True, 2.0)

    error = ShuttingDown("stopping", retry=True)
    handed = _make()
    handed.hand_back(error)
    assert handed.scope.cancel_called
    handed.end(State.FAILED, handed.error)
    assert handed.state is State.FAILED
    assert ending(handed, 1) == Error(1, "shutting_down", "stopping", True)

    finished = _make()
    finished.move(State.RUNNING)
    finished.move(State.DONE)
    finished.hand_back(error)  # too late: it has its answer
    assert isinstance(ending(finished, 1), Done)
    assert finished.error is None
