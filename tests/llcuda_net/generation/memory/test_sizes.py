"""Estimates are not less than what is taken, as Python itself counts it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.storage.records import TokenLog
from llcuda_net.upstream.interface import CompletionEvent
from tests.support.server.memory_server import likely

TOKENS = 400


def taken(make: Callable[[], Any]) -> tuple[int, Any]:
    """The bytes that what is made takes, and it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return tracemalloc.get_traced_memory()[0] - before, made
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "candidates"), [(" word", 0), (" w\N{GRINNING FACE}", 0), ("a", 20), ("a", 300)]
)
async def test_a_log_takes_no_more_than_is_counted(text: str, candidates: int) -> None:
    """As objects, probabilities took nine times as much."""
    generation = Generation("x", None, {"n_probs": candidates, "n_predict": TOKENS}, 60.0)

    def grow() -> None:
        for n in range(TOKENS):
            found = likely(n + 1000, candidates)
            event = CompletionEvent(f"{text}{n}", [n + 1000], completion_probabilities=found)
            generation.extend([event])

    used, _ = taken(grow)
    assert used < generation.log_size
    log = TokenLog(generation.pieces, generation.ids, generation.logprobs)
    assert sizes.of_log(log) == pytest.approx(generation.log_size, rel=0.01)
    if candidates:  # what was reckoned with when it was admitted
        assert generation.log_size < sizes.most(generation.params)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 100_000,
        lambda: "\N{GRINNING FACE}" * 10_000,
        lambda: [1 << 20 | n for n in range(10_000)],
        lambda: [{"role": f"user{n}", "content": "text " * n} for n in range(100)],
        lambda: {"json_schema": {f"k{n}": [{"enum": [str(n), n * 0.5]}] for n in range(500)}},
    ],
)
def test_a_value_takes_no_more_than_is_counted(make: Callable[[], Any]) -> None:
    used, value = taken(make)
    assert 0.9 * used < sizes.of(value) < 2 * used


def test_text_alone_is_not_reckoned_with() -> None:
    assert sizes.most({"n_predict": 100_000}) == sizes.most({"n_predict": 9, "n_probs": 0}) == 0
