"""Feeds one generation of another server: finds who has it, reads it there, finds it anew.

Theory. Who has a generation, the database says; which of it is read already, the generation here.
A stream that ends without facts about the end says nothing of the generation: its server stops, has
lost its lease, or is gone. Then the database is asked again, until it names a server that can be
reached, or the generation's result. In between its readers wait, as those of a restarting server.
Only where neither is to be found, and the server that had it is gone, is it over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from llcuda_net.client.connection import ServerConnection
from llcuda_net.errors import (
    Ahead,
    ConnectError,
    LeaseLost,
    RequestError,
    ShuttingDown,
    UnknownGeneration,
    UpstreamUnavailable,
)
from llcuda_net.server.cluster.peers.connections import Place
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.cluster.peers.reading import NotUnderstoodError, PeerReader, StreamLostError
from llcuda_net.storage.records import Result

log = structlog.get_logger(__name__)

#: Seconds between two questions who has a generation: at first, and at most.
PAUSE, LONGEST = 0.05, 1.0
#: Seconds for which a generation that neither a server nor the store has may turn up: longer than a
#: lease lasts, and an adopter takes.
PATIENCE = 10.0
#: Seconds for which what is not read is still fed: between two requests of one reader.
LINGER = 0.5
#: How often a server is read again that is not understood, without another piece in between.
MISUNDERSTANDINGS = 3


@dataclass(frozen=True)
class Awaited:
    """A generation whose server is gone: another one is about to have it."""


class Sources(Protocol):
    """Where generations are."""

    async def place(self, followed: Followed) -> Place | Result | Awaited | None:
        """Who has it, or its result; None: nobody seems to have it. Raises RequestError."""

    def is_gone(self, server: int) -> bool:
        """Whether that life of a server is over, as far as is known."""

    async def connect(self, place: Place, user: str | None) -> ServerConnection:
        """A connection to a server. Raises ConnectError, RequestError."""


async def feed(followed: Followed, sources: Sources) -> None:
    """Feed it while it is wanted, and a little longer."""
    if followed.link.request is not None and not followed.accepted:
        await _send(followed, sources)
    pause, seen, misunderstood = PAUSE, trio.current_time(), 0
    while await _is_needed(followed):
        before = followed.count
        gone = sources.is_gone(followed.link.server)  # before the look, so that it sees all
        try:
            place = await sources.place(followed)
            if isinstance(place, Result):
                followed.finish_as(place)
                return
            if place is not None:
                seen = trio.current_time()
            elif gone and trio.current_time() - seen > PATIENCE:
                followed.give_up(
                    UnknownGeneration(
                        "the server that had this generation is gone, and nobody has what it had "
                        "of it"
                    )
                )
                return
            if isinstance(place, Place):
                connection = await sources.connect(place, followed.link.name)
                followed.link.server = place.number
                await PeerReader(followed, connection, LINGER).run()
                continue
        except (StreamLostError, ConnectError, LeaseLost, ShuttingDown, UnknownGeneration) as error:
            log.debug("peer_stream_lost", generation=followed.id, reason=str(error))
            if isinstance(error, NotUnderstoodError):
                misunderstood += 1
                if misunderstood == MISUNDERSTANDINGS:
                    followed.give_up(
                        UpstreamUnavailable(f"it cannot be read at the server that has it: {error}")
                    )
                    return
        except Ahead as error:
            followed.lost_part(error)
            return
        except RequestError as error:
            if not error.retry:
                followed.give_up(error)
                return
        if followed.count > before:
            pause, misunderstood = PAUSE, 0
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST)


async def _send(followed: Followed, sources: Sources) -> None:
    """Have a server run the request, once; returns when it is over, or to be read on.

    Where that fails it ends here, and may still be accepted there. Who sends it again finds it by
    its key.
    """
    error: RequestError = LeaseLost("the server that was to run this request is gone", retry=True)
    try:
        place = await sources.place(followed)
        if isinstance(place, Place):
            connection = await sources.connect(place, followed.link.name)
            await PeerReader(followed, connection, LINGER).run()
    except RequestError as refusal:
        error = refusal
    except (StreamLostError, ConnectError) as lost:
        log.debug("request_not_sent", generation=followed.id, reason=str(lost))
    if not followed.accepted and not followed.ended:
        followed.give_up(error)


async def _is_needed(followed: Followed) -> bool:
    """Whether it is to be fed now; waits a while for who may want it."""
    with trio.move_on_after(LINGER):
        while not followed.needed and not followed.ended:
            followed.link.news = trio.Event()
            await followed.link.news.wait()
    return followed.needed
