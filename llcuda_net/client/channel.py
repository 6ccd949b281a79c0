"""What arrives for one request, kept until its consumer asks for it.

A channel belongs to its request and not to a connection. When the connection that carries it is
lost, it is handed to its owner, which may send the request again over the next connection. Its
consumer notices nothing but the wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import trio

import llcuda_protocol as wire
from llcuda_net.client.carrier import Carrier
from llcuda_net.client.requests import WINDOW, Request
from llcuda_net.errors import LlcudaError


class ChannelOwner(Protocol):
    """What opens channels, and takes back those whose connection is lost."""

    def lost(self, channel: Channel) -> bool:
        """The channel lost its connection. Whether it will be sent again; if not, it fails."""

    def answered(self, channel: Channel) -> None:
        """The server has answered the channel on its present connection."""

    def forget(self, channel: Channel) -> None:
        """The channel need not be sent again."""


class Channel:
    """What arrives for one request, in order, for one consumer.

    Args:
        request: what to send.
        owner: takes it back when its connection is lost.
        detaches: whether closing it early lets its generation go on.

    Attributes:
        deadline: when it is given up; set while it is lost, and until it is answered again.
        failure: what ended it, or its last attempt.
    """

    def __init__(self, request: Request, owner: ChannelOwner, *, detaches: bool = False) -> None:
        self.request = request
        self.deadline: float | None = None
        self.failure: Callable[[], LlcudaError] | None = None
        self._owner = owner
        self._detaches = detaches
        self._carrier: Carrier | None = None
        self._number = 0
        self._answered = False  # on the present connection
        self._frames: deque[wire.Frame] = deque()
        self._ended = False
        self._detaching: bool | None = None  # stop was called: to detach, or to cancel
        self._closed = False
        self._wakes = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        where = f"stream {self._number}" if self._carrier is not None else "no connection"
        state = "closed" if self._closed else "ended" if self._ended else where
        return f"<Channel of {self.request!r}: {state}, {len(self._frames)} frames unread>"

    # -- for the consumer -------------------------------------------------------------------------

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
            if self._ended and self.failure is not None:
                raise self.failure()
            await self._wakes.park()
        frame = self._frames.popleft()
        if self.request.metered and not self._frames and self._carrier is not None:
            self._carrier.replenish(self._number)
        return frame

    def stop(self, *, detach: bool) -> None:
        """Ask the server to stop, once; what it still sends arrives as usual.

        Args:
            detach: stop only the reading, and let the generation go on.
        """
        if not self._ended and self._detaching is None:
            self._detaching = detach
            if self._carrier is not None:
                self._carrier.cancel(self._number, detach=detach)

    def close(self) -> None:
        """Stop the request if it runs, and drop what arrives; idempotent."""
        if not self._closed:
            self._closed = True
            self.leave()
            self._frames.clear()
            self._wakes.unpark_all()
            if not self.wanted:
                self._owner.forget(self)

    # -- for the connection and the owner ---------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether its consumer has closed it."""
        return self._closed

    @property
    def wanted(self) -> bool:
        """Whether there is a reason to send it again: a reader, or a generation to stop."""
        return not self._closed or (self.request.metered and self._detaching is False)

    def leave(self) -> None:
        """Ask the server to stop it: detach what was attached to, cancel the rest."""
        self.stop(detach=self._detaches)

    def frame(self, number: int, uploads: Mapping[int, int]) -> wire.Frame:
        """The frame that requests it, or what is still missing, on a stream of this number."""
        # Where pieces wait for the consumer, credit comes when they are read: so no more than one
        # window is ever held, however often the connection is lost.
        unread = any(isinstance(frame, wire.Tokens) for frame in self._frames)
        credit = 0 if unread or self._detaching is not None else WINDOW
        return self.request.frame(number, credit, uploads)

    def bind(self, carrier: Carrier, number: int) -> None:
        """Its request has been sent on this stream of a connection."""
        self._carrier = carrier
        self._number = number
        self._answered = False
        if self._detaching is not None:
            carrier.cancel(number, detach=self._detaching)

    def put(self, frame: wire.Frame) -> None:
        """Take a frame from the connection; an error frame ends the channel, or this attempt."""
        again = self.deadline is not None
        if isinstance(frame, wire.Error):
            failure = partial(self.request.refusal, frame, again=again)
            self.fail(failure, lost=self.request.passes(frame, again=again))
            return
        self.request.saw(frame)
        self._ended = isinstance(frame, wire.Done | wire.Report)
        if not self._answered:
            self._answered = True
            self.deadline = None
            self._owner.answered(self)
        if not self._closed:
            self._frames.append(frame)
            self._wakes.unpark_all()

    def fail(self, failure: Callable[[], LlcudaError], *, lost: bool = False) -> None:
        """End the channel; the failure is raised after what has arrived before it.

        Args:
            lost: sending it again may help. Its owner decides whether that will be done.
        """
        self._carrier = None
        self.failure = failure
        if lost and self._owner.lost(self):
            return
        self._ended = True
        self._owner.forget(self)
        self._wakes.unpark_all()
