"""One stream between two servers: what comes on it goes into the generation that is followed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.client.channel import Channel
from llcuda_net.client.connection import ServerConnection
from llcuda_net.client.requests import Reading, Request
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.server.cluster.peers.asking import NOT_AGAIN
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.tcp.peers.facts import Assembly, Begun, Over
from llcuda_protocol.kinds import MAX_LINGER

#: Bytes of a document about a generation: a request may have images in it.
_MOST_FACTS = 1 << 28


class StreamLostError(Exception):
    """The stream ended, and the generation need not have."""


class NotUnderstoodError(StreamLostError):
    """The other server said what cannot be, or what this version does not know."""


class PeerReader:
    """Reads a generation at another server.

    Args:
        linger: seconds for which it goes on while nobody wants it.
    """

    def __init__(self, followed: Followed, connection: ServerConnection, linger: float) -> None:
        self._followed = followed
        self._connection = connection
        self._linger = linger
        self._again = False

    async def run(self) -> None:
        """Until the generation is over, or is not wanted; or is to be read in another way.

        Raises:
            StreamLostError: the other server has it no longer, or is not understood.
            ConnectError, RequestError: as the client's.
        """
        followed = self._followed
        durable = followed.followed
        channel = Channel(Reading(self._request()), NOT_AGAIN, detaches=True)
        await self._connection.open(channel)
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope, durable)
                try:
                    await self._take_all(channel)
                except (RequestError, ConnectError, StreamLostError) as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            channel.close()
        if failure is not None and not followed.ended:
            raise failure

    def _request(self) -> wire.Generate | wire.Attach:
        followed, request = self._followed, self._followed.link.request
        if request is None or followed.accepted:
            count = followed.count
            return wire.Attach(
                0,
                followed.id,
                0,
                count,
                followed.epoch if followed.accepted and count else None,
                tokens=True,
                durable=followed.followed,
                channels=True,
                peer=self._wishes(),
            )
        policy = followed.link.policy
        peer: dict[str, Any] = {"id": followed.id}
        if followed.api is not None:
            peer["api"] = followed.api
        return replace(
            request,
            tokens=True,
            durable=followed.followed,
            channels=True,
            splices=False,
            on_disconnect=request.on_disconnect if policy is None else policy,
            peer=peer,
        )

    def _wishes(self) -> dict[str, float] | None:
        policy = self._followed.link.policy
        return None if policy is None else {"on_disconnect": min(policy, MAX_LINGER)}

    async def _take_all(self, channel: Channel) -> None:
        followed, assembly = self._followed, Assembly(_MOST_FACTS)
        try:
            while not followed.ended:
                frame = await channel.receive()
                if isinstance(frame, wire.Tokens):
                    followed.take(frame)
                elif isinstance(frame, wire.Facts):
                    document = assembly.add(frame)
                    if isinstance(document, Begun):
                        followed.begin(document)
                    elif isinstance(document, Over):
                        followed.finish(document)
                    elif document is not None:
                        followed.run(document)
                elif isinstance(frame, wire.Channel):
                    followed.switch(frame)
                elif isinstance(frame, wire.Queue):
                    followed.queue(frame)
                elif isinstance(frame, wire.Durable):
                    followed.settle(frame)
                elif isinstance(frame, wire.Accepted):
                    followed.link.policy = None
                    followed.accepted_as(frame)
                    followed.link.request = None
                elif isinstance(frame, wire.Done):
                    raise StreamLostError("the stream ended, and not the generation")
        except ValueError as error:
            raise NotUnderstoodError(f"the other server broke the protocol: {error}") from None

    async def _watch(self, scope: trio.CancelScope, durable: bool) -> None:
        """Do what readers here want of the other server, until nobody wants anything."""
        followed = self._followed
        while True:
            followed.link.news = news = trio.Event()
            if followed.accepted:
                await self._tell()
            if followed.followed and not durable:
                scope.cancel()  # and read it again, with what is asked for now
            if not followed.needed:
                with trio.move_on_after(self._linger):
                    await news.wait()
                if not followed.needed:
                    scope.cancel()
            await news.wait()

    async def _tell(self) -> None:
        """Pass on a cancel, and for how long it is to go on without a reader."""
        followed = self._followed
        if not followed.link.stopping and followed.link.policy is None:
            return
        stopping, wishes = followed.link.stopping, self._wishes()
        request = Request(lambda number: wire.Attach(number, followed.id, 0, peer=wishes))
        channel = Channel(request, NOT_AGAIN)
        try:
            await self._connection.open(channel)
            channel.stop(detach=not stopping)
            while not isinstance(await channel.receive(), wire.Done):
                pass
        except (RequestError, ConnectError):
            return  # the stream that is read fails, too, and then it is told again
        finally:
            channel.close()
        if stopping:
            followed.link.stopping = False
        if wishes is not None:
            followed.link.policy = None
