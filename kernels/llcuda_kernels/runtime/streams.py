"""Named streams, so that copies and kernels overlap, and events to order them.

>>> batches = [np.full((8, 1000), i, np.float32) for i in range(3)]
>>> with StreamManager() as streams:
...     for batch in batches:
...         with streams.use("copy"):
...             following = to_device(batch)  # queued on the stream "copy"
...         with streams.use("compute"):
...             found = token_statistics(following)  # after its copy, beside the next one
...     streams.synchronize()
...     print(to_host(found.entropy).round(3)[:2])
[6.908 6.908]

An operation waits for what other streams have queued with its arrays. `record` and `wait` order
anything else. The current stream is a thread's own. Streams made here do not wait for the default
stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .device import require_gpu


class StreamManager:
    """Streams by name, made when first used, closed together; also a context manager.

    Raises BackendError where there is no GPU. `make` is for tests.
    """

    def __init__(self, *, make: Callable[[], Any] | None = None) -> None:
        if make is None:
            require_gpu("StreamManager")
            from llcuda_kernels.cuda.runtime import driver

            make = driver.new_stream
        self._make = make
        self._streams: dict[str, Any] = {}
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> StreamManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stream(self, name: str) -> Any:
        """The stream of this name. Raises ValueError once the manager is closed."""
        with self._lock:
            if self._closed:
                raise ValueError("this StreamManager is closed")
            if name not in self._streams:
                self._streams[name] = self._make()
            return self._streams[name]

    def names(self) -> list[str]:
        """Those made so far."""
        with self._lock:
            return sorted(self._streams)

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """Within it, this thread's operations go to the stream of this name."""
        from llcuda_kernels.cuda.runtime import driver

        old = driver.set_stream(self.stream(name))
        try:
            yield self.stream(name)
        finally:
            driver.set_stream(old)

    def record(self, name: str) -> Any:
        """An event: done when all that is queued on the stream now is done."""
        return self.stream(name).record()

    def wait(self, name: str, event: Any) -> None:
        """What is queued on the stream from now on waits for the event; the host does not."""
        self.stream(name).wait(event)

    def synchronize(self, name: str | None = None) -> None:
        """Wait until a stream, or all of them, have nothing left to do."""
        with self._lock:
            waited = list(self._streams.values()) if name is None else [self._streams[name]]
        for stream in waited:
            stream.sync()

    def close(self) -> None:
        """Wait for all streams and close them; a second time does nothing."""
        with self._lock:
            streams, self._streams, self._closed = list(self._streams.values()), {}, True
        for stream in streams:
            stream.sync()
            stream.close()
