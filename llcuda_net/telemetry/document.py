"""The status of a server as a document: the report, and what the page shows beside it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgspec
import trio

from llcuda_net.config.users import User
from llcuda_net.errors import StorageError
from llcuda_net.storage.storage import Storage
from llcuda_net.telemetry.history import SECONDS, History
from llcuda_net.telemetry.shortened import MOST_BYTES, shortened

#: Seconds for which the sizes of files stand.
_SIZES = 5.0
#: Seconds that the store may take to say how far its search is behind.
_PATIENCE = 2.0


class StatusDocuments:
    """Makes status documents.

    Args:
        storage: the journal and the store; None where nothing is kept.
    """

    def __init__(self, history: History, storage: Storage | None) -> None:
        self._history = history
        self._storage = storage
        self._sizes: dict[str, Any] = {}
        self._sizes_until = -1.0
        self._looking = trio.Lock()

    async def make(
        self, report: dict[str, Any], user: User, *, history: bool = False
    ) -> dict[str, Any]:
        """A document, as a user may see it.

        Args:
            report: the server's report for this user; it is not changed.
            history: whether it has the samples of the last two minutes.
        """
        document = {
            "object": "status",
            "at": round(time.time(), 3),
            "admin": user.admin,
            **report,
            **self._history.report(user),
        }
        if self._storage is not None and user.admin:
            document["store"] = {**report["store"], **await self._sizes_of(self._storage)}
        document = shortened(document, _fits)
        if history:  # its size is bounded
            document["history"] = {"seconds": SECONDS, "samples": self._history.samples()}
        return document

    async def _sizes_of(self, storage: Storage) -> dict[str, Any]:
        """What is on the disk, and what the search lacks; looked at once for all who ask."""
        async with self._looking:
            if trio.current_time() >= self._sizes_until:
                stats = storage.journal.stats
                found: dict[str, Any] = {
                    "journal_segments": stats.segments,
                    "journal_live_bytes": stats.live_bytes,
                }
                with contextlib.suppress(OSError):
                    found["sizes"], found["free"] = await storage.disk_usage()
                with contextlib.suppress(StorageError), trio.move_on_after(_PATIENCE):
                    found["search_behind"] = await storage.read(lambda store: store.unindexed())
                self._sizes = found
                self._sizes_until = trio.current_time() + _SIZES
            return self._sizes


def _fits(document: dict[str, Any]) -> bool:
    return len(msgspec.json.encode(document)) <= MOST_BYTES
