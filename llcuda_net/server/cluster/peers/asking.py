"""Short questions to another server: what it has in memory, and what it embeds and finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import llcuda_protocol as wire
from llcuda_net.analysis.shards import Question
from llcuda_net.analysis.vector_index import Answer
from llcuda_net.client.channel import Channel
from llcuda_net.client.connection import ServerConnection
from llcuda_net.client.requests import Request
from llcuda_net.errors import ConnectError, RequestError, UnknownGeneration, UpstreamUnavailable
from llcuda_net.generation.state import State
from llcuda_net.server.tcp.peers.parts import answered, to_ask
from llcuda_net.upstream.interface import is_for_another
from llcuda_protocol.kinds import MAX_LISTED

#: Of generations; one of a later version may know more.
_STATES = frozenset(State)


class NotAgain:
    """The owner of channels that are not sent again when their connection is lost."""

    def lost(self, channel: Channel) -> bool:
        """See ChannelOwner."""
        return False

    def answered(self, channel: Channel) -> None:
        """See ChannelOwner."""

    def forget(self, channel: Channel) -> None:
        """See ChannelOwner."""


NOT_AGAIN = NotAgain()


async def has(connection: ServerConnection, id_: str) -> bool:
    """Whether a server has a generation.

    Raises:
        ConnectError, RequestError: it does not say.
    """
    request = Request(partial(wire.Attach, id=id_, credit=0))
    return await _knows(connection, Channel(request, NOT_AGAIN, detaches=True))


async def list_at(connection: ServerConnection) -> list[dict[str, Any]]:
    """The newest generations that a server has in memory, as the protocol's entries.

    Raises:
        ConnectError, RequestError: as `has`.
    """
    request = Request(partial(wire.ListGenerations, limit=MAX_LISTED))
    channel = Channel(request, NOT_AGAIN, detaches=True)
    await connection.open(channel)
    found: list[dict[str, Any]] = []
    try:
        while isinstance(frame := await channel.receive(), wire.Listing):
            found += [one for one in frame.entries if one["state"] in _STATES]
            if len(found) > MAX_LISTED:
                raise ConnectError(f"it lists more than the {MAX_LISTED} that it was asked for")
    finally:
        channel.close()
    return found


async def embed_at_any(
    texts: Sequence[str],
    model: str | None,
    choose: Callable[[Collection[int]], int | None],
    connect: Callable[[int], Awaitable[ServerConnection | None]],
) -> list[bytes] | None:
    """A vector a text, float32, little-endian; None: no other server is to make them.

    Where one is lost, or refuses what another one may do, the next one is asked; each once.

    Args:
        choose: the number of a server that embeds with the model, none of these; None: all of them
            are among these.
        connect: a connection to a server; None: it is gone.

    Raises:
        RequestError: none of them does it.
    """
    failure: RequestError | None = None
    asked: set[int] = set()
    while (server := choose(asked)) is not None:
        asked.add(server)
        try:
            connection = await connect(server)
            if connection is not None:
                return await embed_at(connection, texts, model)
        except ConnectError as error:
            why = f"the server that embeds texts cannot be reached: {error}"
            failure = UpstreamUnavailable(why, retry=True)
        except RequestError as error:
            if not (error.retry or is_for_another(error)):
                raise
            failure = error
    if failure is not None:
        raise failure
    return None


async def embed_at(
    connection: ServerConnection, texts: Sequence[str], model: str | None
) -> list[bytes]:
    """See embed_at_any. Raises ConnectError, RequestError."""
    channel = Channel(Request(partial(wire.Embed, input=[*texts], model=model)), NOT_AGAIN)
    await connection.open(channel)
    found: list[bytes] = []
    try:
        while isinstance(frame := await channel.receive(), wire.Vectors):
            found += frame.vectors
            if len(found) > len(texts):
                break
    finally:
        channel.close()
    if len(found) != len(texts):
        raise ConnectError(f"it sent {len(found)} vectors for {len(texts)} texts")
    return found


async def nearest_at(
    connection: ServerConnection, question: Question, buckets: int, gone: Collection[int]
) -> Answer:
    """What a server finds in those of these buckets that it holds.

    Raises:
        ConnectError, RequestError: as `has`.
    """
    make = partial(wire.Search, text="", k=question.k, peer=to_ask(question, buckets, gone))
    channel = Channel(Request(make), NOT_AGAIN)
    await connection.open(channel)
    try:
        frame = await channel.receive()
    finally:
        channel.close()
    if not isinstance(frame, wire.Done) or frame.peer is None:  # it is of an earlier version
        return Answer([], 0, 0)
    return answered(frame.peer, frame.usage.get("searched", 0))


async def search_at(
    connection: ServerConnection, text: str, k: int
) -> tuple[list[tuple[str, float]], dict[str, int]]:
    """The ids of what a server finds that is near to a text, with their cosines; and its usage.

    Raises:
        ConnectError, RequestError: as `has`, or it embeds no texts.
    """
    channel = Channel(Request(partial(wire.Search, text=text, k=k)), NOT_AGAIN)
    await connection.open(channel)
    found: list[tuple[str, float]] = []
    try:
        while isinstance(frame := await channel.receive(), wire.Hits):
            found += [(one["id"], one["score"]) for one in frame.hits]
    finally:
        channel.close()
    return found, frame.usage if isinstance(frame, wire.Done) else {}


async def delete_at(connection: ServerConnection, id_: str) -> bool:
    """Delete what a server alone has of a generation; whether it had it.

    Raises:
        ConnectError, RequestError: as `has`, or it still runs.
    """
    return await _knows(connection, Channel(Request(partial(wire.Delete, id=id_)), NOT_AGAIN))


async def _knows(connection: ServerConnection, channel: Channel) -> bool:
    """Whether the server knows of the generation about which it is asked something."""
    await connection.open(channel)
    try:
        await channel.receive()
    except UnknownGeneration:
        return False
    finally:
        channel.close()
    return True
