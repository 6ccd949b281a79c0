"""A sequence of operations recorded once and replayed: a launch costs next to nothing then.

::

    y = to_device(x)
    graph = capture(lambda: softmax(relu(y, out=y), out=y))
    for batch in batches:
        ...                                  # new numbers into y
        graph.replay()

While it is recorded nothing runs, so the sequence may not look at results, copy to or from the
host, or allocate: give every operation its `out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llcuda_kernels.errors import BackendError

from .device import gpu


class Graph:
    """A recorded sequence. It holds the addresses it was recorded with: keep the arrays alive."""

    def __init__(self, graph: Any, stream: Any) -> None:
        self._graph, self._stream = graph, stream

    def replay(self) -> None:
        """Queue the whole sequence on the stream that it was recorded for."""
        self._graph.launch(self._stream)

    def synchronize(self) -> None:
        """Wait until it has run."""
        self._stream.sync()


def capture(sequence: Callable[[], Any], *, stream: Any = None) -> Graph:
    """Run `sequence` twice: once to compile and check it, once to record it.

    stream: where replays go, by default a new one. Raises BackendError where there is no GPU, and
    RuntimeError where the sequence does what cannot be recorded.
    """
    if not gpu().usable:
        raise BackendError(f"capture: no CUDA here: {gpu().reason}")
    from llcuda_kernels.cuda.runtime import driver

    return Graph(*driver.record(sequence, stream))
