"""One loop over the sockets of all connections: it reads, and lets a step begin more.

A load generator must cost less than what it measures. So there is one system call per wake-up and
one per readable socket, and no task per stream. In trio, the loop waits for its own epoll.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

import trio

from tools.load.streams import Connection

#: Runs after each pass over the readable sockets. It returns the longest time in seconds until it
#: must run again, None for any time, and ends the loop by a negative time.
Step = Callable[[], float | None]


class LoadLoop:
    """Receives on any number of connections."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()

    def __repr__(self) -> str:
        return f"<LoadLoop of {len(self._selector.get_map() or ())} connections>"

    def add(self, connection: Connection) -> None:
        """Receive on a connection, too."""
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)

    def remove(self, connection: Connection) -> None:
        """Receive on a connection no more, and close it."""
        self._selector.unregister(connection.sock)
        connection.close()

    def run(self, seconds: float, step: Step = lambda: None) -> None:
        """Receive for so many seconds, or until the step ends it.

        Raises:
            LoadError: an answer or a connection went wrong.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = step()
            if pause is not None:
                if pause < 0:
                    return
                left = min(left, pause)
            self._receive(left)

    async def run_in_trio(self, step: Step) -> None:
        """Receive until the step ends it, beside other tasks; see `run`."""
        while (pause := step()) is None or pause >= 0:
            with trio.move_on_after(float("inf") if pause is None else pause):
                await trio.lowlevel.wait_readable(self._selector.fileno())
            self._receive(0.0)

    def _receive(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data.ready()

    def close(self) -> None:
        """Close the loop and every connection in it."""
        for key in list((self._selector.get_map() or {}).values()):
            self.remove(key.data)
        self._selector.close()
