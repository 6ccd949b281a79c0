"""Entries of conversations as they were shown last: what is over is read and rendered once."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class Key(NamedTuple):
    """What an entry as JSON depends on, its place in the tree apart.

    Attributes:
        generation: that is over.
        conversation: the id of the one that it is shown in.
        hidden: its items that were deleted from that one.
        render: with its answer as blocks of HTML.
    """

    generation: str
    conversation: str
    hidden: tuple[str, ...]
    render: bool


class NodeCache:
    """The entries that were shown last, as JSON.

    Args:
        most: bytes that they may take.
    """

    def __init__(self, most: int = 4 << 20) -> None:
        self.size = 0
        self._most = most
        self._kept: OrderedDict[Key, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<NodeCache {len(self._kept)} entries, {self.size:,} bytes>"

    def get(self, key: Key) -> bytes | None:
        """An entry; None: it is not here."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: Key, node: bytes) -> None:
        """An entry was made; one that takes much of the room is not kept."""
        if len(node) > self._most // 8:
            return
        self.size += len(node) - len(self._kept.pop(key, b""))
        self._kept[key] = node
        while self.size > self._most:
            _, gone = self._kept.popitem(last=False)
            self.size -= len(gone)

    def forget(self, generation: str) -> None:
        """A generation was deleted."""
        for key in [one for one in self._kept if one.generation == generation]:
            self.size -= len(self._kept.pop(key))
