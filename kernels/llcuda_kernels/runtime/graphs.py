"""A sequence of operations recorded once and replayed: a launch costs next to nothing then.

>>> x = np.linspace(-1, 1, 3 * 4096, dtype=np.float32).reshape(3, 4096)
>>> y = to_device(x)
>>> graph = capture(lambda: softmax(relu(y)))
>>> for batch in (x, -x):
...     _ = to_device(batch, out=y)  # new numbers to where the sequence reads
...     graph.replay()
...     print(to_host(graph.result).shape)
(3, 4096)
(3, 4096)

The sequence runs once before it is recorded; the memory that it takes then is what it works in at
each replay, results included. While it is recorded nothing runs, so it may not look at results or
copy to or from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .device import require_gpu


class Graph:
    """A recorded sequence. `result` is what it gave back; a replay writes there again.

    It holds the addresses it was recorded with: keep the arrays that it reads alive.
    """

    def __init__(self, graph: Any, stream: Any, memory: Any, result: Any) -> None:
        from llcuda_kernels.cuda.runtime import driver

        self._graph, self._stream, self._memory, self.result = graph, stream, memory, result
        self._place = driver.place()

    def replay(self) -> None:
        """Queue the whole sequence: after what is queued on the current stream, and before what
        will be; with arrays of PyTorch or CuPy among those recorded, on their current stream, too.
        """
        from llcuda_kernels.cuda.runtime import driver

        with driver.at(self._place):
            own = driver.handle_of(self._stream)
            theirs = (library.handle(self._place.ordinal) for library in self._memory.libraries)
            others = [driver.handle(), *(driver.handle_from(n) for n in theirs if n is not None)]
            for other in others:
                driver.wait_for(own, other)
            self._graph.launch(self._stream)
            for other in others:
                driver.wait_for(other, own)

    def synchronize(self) -> None:
        """Wait until it has run."""
        self._stream.sync()


def capture(sequence: Callable[[], Any], *, stream: Any = None) -> Graph:
    """Run `sequence` twice: once to compile it and take its memory, once to record it.

    stream: where it runs, by default a new one. Raises BackendError where there is no GPU, and
    RuntimeError where the sequence does what cannot be recorded.
    """
    require_gpu("capture")
    from llcuda_kernels.cuda.runtime import driver
    from llcuda_kernels.cuda.runtime.device_memory import Recording, set_recording

    target = stream if stream is not None else driver.new_stream()
    driver.wait_for(driver.handle_of(target), driver.handle())
    memory = Recording()
    old = driver.set_stream(target)
    set_recording(memory)
    try:
        sequence()
        target.sync()
        memory.again()
        builder = target.create_graph_builder()
        builder.begin_building()
        # Work that is queued on the builder's stream is recorded; nothing runs.
        driver.set_stream(builder)
        try:
            result = sequence()
        finally:
            driver.set_stream(target)
            builder.end_building()
        return Graph(builder.complete(), target, memory, result)
    finally:
        set_recording(None)
        driver.set_stream(old)
