"""What a client uploads in pieces, for the requests that name it: images and audio, mostly.

An upload is a stream of its own, so that its pieces pass between the frames of other streams. It is
over when its last piece has come; then it is kept until a request uses it up. All that a connection
holds counts in the room that frames have which are not whole (see `room`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from llcuda_net.errors import InvalidRequest, RequestError, RequestTimeout
from llcuda_net.server.tcp.fitting import Replies
from llcuda_net.server.tcp.room import Incoming
from llcuda_protocol import Done, Upload

#: Most bytes of one upload.
MOST = 16 << 20
#: Seconds after its last piece in which an upload must be used, or another piece must come.
PATIENCE = 60.0
#: Bytes that an upload counts beside its own: they may be many and small.
_EACH = 1 << 10


@dataclass(slots=True)
class _Held:
    """An upload, as far as it has come; `since`: the last piece."""

    since: float
    whole: bool = False
    data: bytearray = field(default_factory=bytearray)


class Uploads:
    """The uploads of one connection.

    Args:
        replies: tells the client when one is whole, and why one is refused.
        room: where their bytes count.
        get_owner: the name of the user whose they are.
    """

    def __init__(self, replies: Replies, room: Incoming, get_owner: Callable[[], str]) -> None:
        self._replies = replies
        self._room = room
        self._get_owner = get_owner
        self._held: dict[int, _Held] = {}  # the one that has waited longest first
        self._watching = False

    def __repr__(self) -> str:
        size = sum(len(held.data) for held in self._held.values())
        return f"<Uploads {len(self._held)} bytes={size:,}>"

    @property
    def most(self) -> int:
        """Bytes of one upload at most: no more than there is room for."""
        return min(MOST, self._room.upload_share - _EACH)

    @property
    def open(self) -> tuple[int, ...]:
        """The streams of those that are not whole."""
        return tuple(number for number, held in self._held.items() if not held.whole)

    def take(self, event: Upload, nursery: trio.Nursery) -> None:
        """Take a piece; answers its stream when it was the last, and when it is refused."""
        try:
            held = self._held.pop(event.stream, None)
            self._add(event, held)
        except RequestError as error:
            self._release(held)
            self._replies.fail(event.stream, error)
            return
        if not event.more:
            self._replies.send(Done(event.stream, "complete"))
        if not self._watching:
            self._watching = True
            nursery.start_soon(self._watch)

    def find(self, number: int) -> bytearray:
        """The data of one that is whole.

        Raises:
            InvalidRequest: there is none of this number, or no more.
        """
        held = self._held.get(number)
        if held is None or not held.whole:
            raise InvalidRequest(
                f"there is no upload {number} on this connection: it failed, is not whole, was "
                f"used before, or was not used within {PATIENCE:g} s"
            )
        return held.data

    def cancel(self, number: int) -> bool:
        """End one that is not whole, for the client; whether there was one."""
        if number not in self.open:
            return False
        self.drop(number)
        self._replies.send(Done(number, "cancelled"))
        return True

    def drop(self, number: int) -> None:
        """Forget one, where it is there."""
        self._release(self._held.pop(number, None))

    def close(self) -> None:
        """The connection is gone."""
        for number in tuple(self._held):
            self.drop(number)

    def _add(self, event: Upload, held: _Held | None) -> None:
        before = 0 if held is None else len(held.data)
        size = before + len(event.data)
        if size > self.most:
            raise InvalidRequest(f"an upload may have {self.most:,} bytes")
        if not size and not event.more:
            raise InvalidRequest("an upload of no bytes")
        self._room.upload(self._get_owner(), len(event.data) + (_EACH if held is None else 0))
        held = held or _Held(0.0)
        held.data += event.data
        held.since, held.whole = trio.current_time(), not event.more
        self._held[event.stream] = held

    def _release(self, held: _Held | None) -> None:
        if held is not None:
            self._room.upload(self._get_owner(), -len(held.data) - _EACH)

    async def _watch(self) -> None:
        """Drop what nobody uses and what does not go on, as long as there is anything."""
        while self._held:
            number, held = next(iter(self._held.items()))
            deadline = held.since + PATIENCE
            if trio.current_time() < deadline:
                await trio.sleep_until(deadline)
                continue
            self.drop(number)
            if not held.whole:
                error = RequestTimeout(
                    f"no piece of the upload came for {PATIENCE:g} s", retry=True
                )
                self._replies.fail(number, error)
                self._replies.flush()
        self._watching = False
