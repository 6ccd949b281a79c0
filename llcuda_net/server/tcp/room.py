"""What all connections together may have waiting: bytes to be sent, and frames not yet whole.

One connection alone may have its fill. When all of them have much, each gets little.
"""

from __future__ import annotations

from collections import Counter

from llcuda_net.errors import Overloaded

#: Bytes of a frame that is not whole which count for nothing: most frames are smaller.
FREE = 16 << 10


class Unsent:
    """The bytes in all write buffers.

    Args:
        bound: bytes above which each buffer takes only a little.

    Attributes:
        waiting: bytes now; the buffers count them.
    """

    __slots__ = ("bound", "waiting")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Unsent {self.waiting:,} of {self.bound:,} bytes>"


class Incoming:
    """The bytes of frames that have begun to come, on all connections.

    Uploads count here, too: what is for a request, and has not come whole. They may take half of
    the room, so that frames always have the other half.

    Args:
        bound: bytes of all of them, FREE of each connection apart.

    Attributes:
        share: bytes of one user's: however much they take, some are left for others.
        upload_share: bytes of one user's uploads, which count in `share` as well.
        waiting: bytes now.
    """

    def __init__(self, bound: int) -> None:
        self.share = bound - bound // 4
        self.upload_share = self.share // 2
        self.waiting = 0
        self._bound = bound
        self._users: Counter[str] = Counter()
        self._uploads: Counter[str] = Counter()
        self._uploaded = 0

    def __repr__(self) -> str:
        return f"<Incoming {self.waiting:,} of {self._bound:,} bytes>"

    def change(self, owner: str, before: int, now: int) -> None:
        """A connection of this user held `before` bytes of a frame, and holds `now`.

        Raises:
            Overloaded: there is no room for them; nothing was counted.
        """
        self._hold(owner, max(0, now - FREE) - max(0, before - FREE))

    def upload(self, owner: str, more: int) -> None:
        """So many bytes more of a user's uploads, or fewer.

        Raises:
            Overloaded: there is no room for them; nothing was counted.
        """
        if more > 0 and self._uploads[owner] + more > self.upload_share:
            raise _no_room(self.upload_share, "your uploads")
        if more > 0 and self._uploaded + more > self._bound // 2:
            raise _no_room(self._bound // 2, "the uploads of all clients")
        self._hold(owner, more)
        self._uploaded += more
        self._uploads[owner] += more
        if not self._uploads[owner]:
            del self._uploads[owner]

    def _hold(self, owner: str, more: int) -> None:
        if more > 0 and self._users[owner] + more > self.share:
            raise _no_room(self.share, "yours")
        if more > 0 and self.waiting + more > self._bound:
            raise _no_room(self._bound, "those of all clients")
        self.waiting += more
        self._users[owner] += more
        if not self._users[owner]:
            del self._users[owner]


def _no_room(bound: int, whose: str) -> Overloaded:
    return Overloaded(
        f"frames that are not whole may take {bound:,} bytes of memory, {whose} together: "
        "try again later",
        retry=True,
    )
