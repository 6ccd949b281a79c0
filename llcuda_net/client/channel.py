"""What arrives for one request, kept until its consumer asks for it.

A channel belongs to its request and not to a connection: when the link that carries it is lost, it
is handed to its home, which may send the request again over the next link. Its consumer notices
nothing but the wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

import llcuda_protocol as wire
from llcuda_net.client.requests import WINDOW, Request
from llcuda_net.errors import LlcudaError

if TYPE_CHECKING:
    from llcuda_net.client.connection import ServerConnection


class Home(Protocol):
    """Who takes care of the channels whose link is lost."""

    def lost(self, channel: Channel) -> bool:
        """Whether the channel will be sent again; if not, it has failed."""

    def settled(self, channel: Channel) -> None:
        """The server has answered a channel on its present link."""

    def forget(self, channel: Channel) -> None:
        """The channel need not be sent again."""


class Channel:
    """What arrives for one request, in order, for one consumer.

    Args:
        request: what to ask.
        home: who looks after it when its link is lost.
        detaches: whether closing it early lets its generation go on.
    """

    def __init__(self, request: Request, home: Home, *, detaches: bool = False) -> None:
        self.request = request
        #: When it is given up; set while it is lost, and until it is answered again.
        self.deadline: float | None = None
        #: What ended it, or its last attempt.
        self.failure: Callable[[], LlcudaError] | None = None
        self._home = home
        self._detaches = detaches
        self._link: ServerConnection | None = None
        self._number = 0
        self._answered = False  # on the present link
        self._frames: deque[wire.Frame] = deque()
        self._ended = False
        self._detaching: bool | None = None  # it was asked to stop: to detach, or to be cancelled
        self._closed = False
        self._wakes = trio.lowlevel.ParkingLot()

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
        if self.request.metered and not self._frames and self._link is not None:
            self._link.replenish(self._number)
        return frame

    def stop(self, *, detach: bool) -> None:
        """Ask the server to stop, once; what it still says arrives as usual.

        Args:
            detach: stop only the reading, and let the generation go on.
        """
        if not self._ended and self._detaching is None:
            self._detaching = detach
            if self._link is not None:
                self._link.cancel(self._number, detach=detach)

    def close(self) -> None:
        """Want nothing more: stop the request if it runs, and drop what arrives."""
        if not self._closed:
            self._closed = True
            self.leave()
            self._frames.clear()
            self._wakes.unpark_all()
            if not self.wanted:
                self._home.forget(self)

    # -- for the link and the home ----------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether nobody reads it any more."""
        return self._closed

    @property
    def wanted(self) -> bool:
        """Whether there is a reason to send it again: a reader, or a generation to be stopped."""
        return not self._closed or (self.request.metered and self._detaching is False)

    def leave(self) -> None:
        """Ask the server to stop in the way that is usual for it."""
        self.stop(detach=self._detaches)

    def frame(self, number: int) -> wire.Frame:
        """What asks for it, or for what is still missing, on a stream of this number."""
        # Where pieces wait for the consumer, credit comes when they are read: so no more than one
        # window is ever held, however often the link is lost.
        unread = any(isinstance(frame, wire.Tokens) for frame in self._frames)
        return self.request.frame(number, 0 if unread or self._detaching is not None else WINDOW)

    def bind(self, link: ServerConnection, number: int) -> None:
        """Its request has been sent over this link."""
        self._link = link
        self._number = number
        self._answered = False
        if self._detaching is not None:
            link.cancel(number, detach=self._detaching)

    def put(self, frame: wire.Frame) -> None:
        """Take a frame from the link; an error frame ends the channel, or this attempt at it."""
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
            self._home.settled(self)
        if not self._closed:
            self._frames.append(frame)
            self._wakes.unpark_all()

    def fail(self, failure: Callable[[], LlcudaError], *, lost: bool = False) -> None:
        """End the channel; the failure is raised after what has arrived before it.

        Args:
            lost: trying again may mend it. Its home says whether that will be done.
        """
        self._link = None
        self.failure = failure
        if lost and self._home.lost(self):
            return
        self._ended = True
        self._home.forget(self)
        self._wakes.unpark_all()
