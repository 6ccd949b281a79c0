"""What arrives on one stream of a client's connection, kept until its consumer asks for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

import llcuda_protocol as wire
from llcuda_net.errors import LlcudaError, RequestError

if TYPE_CHECKING:
    from llcuda_net.client.link import Link


class Channel:
    """What arrives on one stream, in order, for one consumer."""

    def __init__(self, link: Link, number: int, *, metered: bool) -> None:
        self._link = link
        self._number = number
        self._metered = metered  # whether credit governs what arrives
        self._frames: deque[wire.Frame] = deque()
        self._failure: Callable[[], LlcudaError] | None = None
        self._ended = False
        self._cancelled = False
        self._closed = False
        self._wakes = trio.lowlevel.ParkingLot()

    def put(self, frame: wire.Frame) -> None:
        """Take a frame from the link; an error frame ends the channel with that failure."""
        if isinstance(frame, wire.Error):
            self.fail(partial(refusal, frame))
            return
        self._ended = isinstance(frame, wire.Done | wire.Report)
        if not self._closed:
            self._frames.append(frame)
            self._wakes.unpark_all()

    def fail(self, failure: Callable[[], LlcudaError]) -> None:
        """End the channel; the failure is raised after what has arrived before it."""
        self._failure = failure
        self._ended = True
        self._wakes.unpark_all()

    async def receive(self) -> wire.Frame:
        """The next frame.

        Raises:
            ConnectError: the connection was lost.
            RequestError: the server ended the stream with an error.
            trio.ClosedResourceError: this side closed the channel.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._frames:
            if self._closed:
                raise trio.ClosedResourceError("the stream was closed")
            if self._failure is not None:
                raise self._failure()
            await self._wakes.park()
        frame = self._frames.popleft()
        if self._metered and not self._frames:
            self._link.replenish(self._number)
        return frame

    def cancel(self) -> None:
        """Ask the server to stop, once; what it still says arrives as usual."""
        if not self._ended and not self._cancelled:
            self._cancelled = True
            self._link.cancel(self._number)

    def close(self) -> None:
        """Want nothing more: stop the request if it runs, and drop what arrives."""
        if not self._closed:
            self._closed = True
            self.cancel()
            self._frames.clear()
            self._wakes.unpark_all()


def refusal(event: wire.Error) -> RequestError:
    """The exception for an error frame."""
    return RequestError(event.code, event.message, retry=event.retry, retry_after=event.retry_after)
