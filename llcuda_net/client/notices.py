"""Notices to a person about a lost connection: one line when something has changed."""

from __future__ import annotations

from collections.abc import Callable

from llcuda_net.client.channel import Channel
from llcuda_net.client.requests import Reading


class Notices:
    """Follows what is lost and resumed, and puts it into words.

    Args:
        on_note: called with each line; None: no notices.
    """

    def __init__(self, on_note: Callable[[str], object] | None) -> None:
        self._on_note = on_note
        self._broken: set[Channel] = set()
        self._resumed: list[Channel] = []
        self._announced = False  # that the connection is lost
        self._retrying = False  # and that the first attempt failed
        self._connected = True

    def lost(self, channel: Channel) -> None:
        """A channel has lost its connection."""
        if not channel.closed:
            self._broken.add(channel)

    def begin(self, what: str) -> None:
        """The watcher begins to reconnect, since this has happened."""
        if not self._announced:
            self._announced = True
            self._connected = False
            self._say(f"{what}{_after([*self._broken])}; reconnecting")

    def retrying(self, reason: str) -> None:
        """An attempt has failed."""
        if not self._retrying:
            self._retrying = True
            self._say(f"no connection yet, trying again: {reason}")

    def connected(self) -> None:
        """There is a connection again, and what was lost has been sent over it."""
        self._connected = True
        if self._announced and not self._broken:
            self._say("connected again")
            self._reset()

    def answered(self, channel: Channel) -> None:
        """The server has answered a channel."""
        if channel in self._broken:
            self._broken.remove(channel)
            if not channel.closed:
                self._resumed.append(channel)
            self._end()

    def forget(self, channel: Channel) -> None:
        """A channel will not be resumed."""
        if channel in self._broken:
            self._broken.remove(channel)
            self._end()

    def gave_up(self, seconds: float) -> None:
        """Too long without a connection."""
        self._say(f"gave up after {seconds:g} s")
        self._reset()

    def quiet(self) -> None:
        """Nothing waits for a connection any more."""
        if not self._connected:
            self._reset()

    def _end(self) -> None:
        """The last channel that was lost has been resumed, or has ended."""
        if self._announced and self._connected and not self._broken:
            if self._resumed:
                self._say(f"resumed{_at(self._resumed)}")
            self._reset()

    def _reset(self) -> None:
        self._announced = self._retrying = False
        self._resumed = []

    def _say(self, line: str) -> None:
        if self._on_note is not None:
            self._on_note(line)


def _after(channels: list[Channel]) -> str:
    """How far the answers were."""
    if len(channels) > 1:
        return f" with {len(channels)} requests under way"
    for channel in channels:
        request = channel.request
        if isinstance(request, Reading) and request.accepted is not None:
            return f" after {request.received} token{'' if request.received == 1 else 's'}"
    return ""


def _at(channels: list[Channel]) -> str:
    """Where they resume."""
    if len(channels) > 1:
        return f": {len(channels)} requests go on"
    request = channels[0].request
    return f" at token {request.received}" if isinstance(request, Reading) else ""
