"""The client: one connection to an llcuda-server, used by as many tasks at once as you like.

    async with llcuda_net.connect("127.0.0.1:9000") as client:
        async with client.generate("Say hello.", n_predict=64) as stream:
            async for piece in stream:
                print(piece, end="", flush=True)
        print(stream.result.usage)

It runs under trio; `llcuda_net.sync` is the same for code without async.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import trio

import llcuda_protocol as wire
from llcuda_net.client.calls import embed, list_generations, report, search
from llcuda_net.client.dial import dial, tls_context
from llcuda_net.client.reconnecting import ReconnectingConnection
from llcuda_net.client.requests import WINDOW, Reading, Request, linger, urgency, what_to_send
from llcuda_net.client.results import Entry, Hit
from llcuda_net.client.stream import Opening, Result, Stream, require_attach
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.util.address import Address, parse_address
from llcuda_protocol.kinds import MAX_HITS, MAX_LISTED

#: Seconds to wait for a connection and the server's greeting.
CONNECT_TIMEOUT = 10.0
#: Seconds of silence after which the server is pinged.
KEEPALIVE = 20.0
#: Seconds for which a connection that was lost is tried again.
RECONNECT = 30.0


@asynccontextmanager
async def connect(
    server: str | Address = "127.0.0.1:9000",
    *,
    tls: bool | ssl.SSLContext = False,
    tls_ca: str | Path | None = None,
    token: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
    keepalive: float = KEEPALIVE,
    reconnect: float = RECONNECT,
    on_note: Callable[[str], object] | None = None,
) -> AsyncIterator[Client]:
    """Connect to an llcuda-server; leaving the block closes the connection.

    Generations that were started here and still run when the block is left are cancelled on the
    server.

    Args:
        server: HOST:PORT; an IPv6 address stands in brackets.
        tls: whether to use TLS, or an SSLContext to use as it is.
        tls_ca: PEM file with the certificates to trust in place of the system's; implies TLS.
        token: the secret, for a server that requires one.
        timeout: seconds for connecting, TLS and the server's greeting together.
        keepalive: seconds of silence after which the server is pinged; after as many again
            without a byte from it the connection counts as lost.
        reconnect: seconds for which a connection that was lost later is tried again, and the
            generations on it are resumed; 0: never.
        on_note: called with one line for a person when the connection is lost, is tried again, is
            back, or is given up. It must neither wait nor raise.

    Raises:
        ConfigError: the address or the PEM file is wrong.
        ConnectError: no llcuda-server could be reached there.
        RequestError: the server refused the connection: code `unauthorized` for the token.
    """
    address = parse_address(server) if isinstance(server, str) else server
    context = tls_context(tls, tls_ca)
    started = trio.current_time()
    transport: trio.abc.Stream | None = None
    with trio.move_on_after(timeout):
        transport = await dial(address, context)
    if transport is None:
        raise ConnectError(f"cannot connect to {address}: no answer within {timeout:g} s")
    connection = ReconnectingConnection(
        str(address),
        token=token,
        timeout=timeout,
        keepalive=keepalive,
        reconnect=reconnect,
        redial=partial(dial, address, context),
        on_note=on_note,
    )
    left = max(0.0, started + timeout - trio.current_time())
    async with connection.run(transport, left):
        yield Client(connection)


class Client:
    """A connection to an llcuda-server. `connect` makes one.

    Any number of tasks may use it at once: each request has its own stream on the connection, and
    waits when the server allows no more of them. When the connection is lost, requests under way
    and new ones wait for the next one, for at most `reconnect` seconds.
    """

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<Client over {self._connection!r}>"

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        transport: trio.abc.Stream,
        *,
        name: str = "the server",
        token: str | None = None,
        timeout: float = CONNECT_TIMEOUT,
        keepalive: float = KEEPALIVE,
        reconnect: float = RECONNECT,
        redial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        on_note: Callable[[str], object] | None = None,
    ) -> AsyncIterator[Client]:
        """A client over a byte stream that is already open, which it will close.

        Args:
            transport: any trio stream with an llcuda-server at its other end.
            name: what messages call the server.
            redial: opens another such stream when this one was lost; None: there is no other, and
                a lost connection fails what runs on it. It raises ConnectError or OSError when it
                cannot.
            token, timeout, keepalive, reconnect, on_note: as for `connect`.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        connection = ReconnectingConnection(
            name,
            token=token,
            timeout=timeout,
            keepalive=keepalive,
            reconnect=reconnect,
            redial=redial,
            on_note=on_note,
        )
        async with connection.run(transport, timeout):
            yield cls(connection)

    @property
    def features(self) -> frozenset[str]:
        """The requests that the server announced: `generate`, `attach`, `embed`…"""
        return self._connection.features

    def generate(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        raw: str | None = None,
        messages: Iterable[Mapping[str, str]] | None = None,
        system: str | None = None,
        timeout: float | None = None,
        tokens: bool = False,
        key: str | None = None,
        on_disconnect: Literal["continue", "cancel"] | float | None = None,
        level: str | None = None,
        cache: bool = False,
        durable: bool = False,
        model: str | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
        deadline: float | None = None,
        splices: bool = False,
        **params: Any,
    ) -> AbstractAsyncContextManager[Stream]:
        """Start a generation: `async with client.generate("…") as stream`.

        Exactly one of `prompt`, `raw` and `messages` says what to send. The block begins when the
        server has accepted the request; leaving it early cancels the generation on the server,
        unless `stream.detach()` was called.

        Args:
            prompt: a string is sent as one user message, through the model's chat template where
                it has one; a list of token ids is sent as it is.
            raw: text to be continued as it is, with no template.
            messages: a conversation: mappings with `role` and `content`.
            system: a system message to put before `prompt` or `messages`.
            timeout: seconds for the whole request; None leaves it to the server.
            tokens: also give the token ids (`Piece.id`, `Result.ids`).
            key: names the request: the same key and request, from any client, is the same
                generation, joined while it runs and read again when it is done. Without one a
                random key sees to it that no loss of the connection can start it twice.
            on_disconnect: what happens when its last reader disconnects without a cancel or
                detach: "continue", "cancel", or the seconds for which it goes on; None leaves it
                to the server.
            level: what it must survive: memory (nothing about it is stored), process, disk or
                strict; None leaves it to the server.
            cache: an exact repeat (same model, prompt and parameters, with a fixed seed or
                temperature 0) may be answered from what is stored; `Result.cached` says so.
            durable: also report how many pieces a power cut can no longer lose (`Durable` events,
                `Stream.durable`).
            model: the name of the model that runs it, as `models()` lists it; None: the server's
                default.
            priority: "high", "normal" or "low": a higher class runs first; None: normal.
            deadline: seconds from now by which it must have begun to run; if it still waits then,
                it fails with code `timeout`, or `overloaded` where that can be foreseen. 0: only if
                it can begin at once. None: it waits without limit.
            splices: also report where another upstream continues it (`Spliced` events), if the
                server reports that.
            params: sampling parameters by llama-server's names: `n_predict`, `temperature`,
                `top_k`, `top_p`, `min_p`, `seed`, `stop`, `grammar`, `json_schema`, `n_probs`…

        Raises:
            TypeError: not exactly one of the three was given.
            ValueError: `on_disconnect` or `priority` is none of these.
            ConnectError: the connection is lost, before or while the stream is read, and could not
                be made again in time.
            RequestError: the server refused the request or could not complete it; its class and
                `code` say why, and `retry` whether trying again may help: `Overloaded`,
                `UpstreamError`, `ContextExceeded`… `Unsupported` where a model, a priority or a
                deadline was given, and the server is too old for it.
        """
        request = wire.Generate(
            0,
            WINDOW,
            params=params,
            timeout=timeout,
            tokens=tokens,
            key=uuid4().hex if key is None else key,
            fresh=key is None,
            on_disconnect=linger(on_disconnect),
            level=level,
            cache=cache,
            durable=durable,
            model=model,
            priority=urgency(priority),
            deadline=deadline,
            splices=splices and "splice" in self.features,
            **what_to_send(prompt, raw, messages, system),
        )
        return Opening(self._connection, request)

    def attach(
        self,
        generation: str,
        first: int = 0,
        *,
        tokens: bool = False,
        durable: bool = False,
        splices: bool = False,
    ) -> AbstractAsyncContextManager[Stream]:
        """Read an existing generation, running or over: `async with client.attach(id)`.

        Any number of clients may read one at once. Leaving the block early leaves the generation
        alone; `stream.cancel()` stops it, for all.

        Args:
            generation: its id: `Stream.id` of whoever started it.
            first: sequence number of the first piece to read; one that does not exist yet is
                waited for.
            tokens, durable, splices: as for `generate`.

        Raises:
            ConnectError: as for `generate`.
            RequestError: as for `generate`; `UnknownGeneration` when there is none of this id (any
                more), `Unsupported` from a server that is too old.
        """
        reported = splices and "splice" in self.features
        request = wire.Attach(
            0, generation, WINDOW, first, tokens=tokens, durable=durable, splices=reported
        )
        return Opening(self._connection, request)

    async def cancel(self, generation: str) -> str:
        """Stop a generation, whichever client started it; all its readers see it end.

        Returns:
            how it ended: "cancelled", or, if it was over already, "stop" or "length", or the code
            of the error that it ended with.

        Raises:
            ConnectError: the connection is lost, and could not be made again in time.
            RequestError: `UnknownGeneration`: there is none of this id (any more);
                `Unsupported`: the server is too old.
        """
        require_attach(self._connection)
        reading = Reading(wire.Attach(0, generation, 0))
        channel = await self._connection.open(reading, stop=True)
        try:
            while not isinstance(frame := await channel.receive(), wire.Done):
                pass
        except RequestError as error:
            if reading.accepted is None:
                raise
            return error.code
        finally:
            channel.close()
        return frame.reason

    async def complete(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Result:
        """The whole answer at once. Takes what `generate` takes, and raises what it raises."""
        async with self.generate(prompt, **arguments) as stream:
            while await stream.take():
                pass
        return stream.result

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> list[list[float]]:
        """One vector per text, in their order.

        Args:
            texts: what to embed.
            model: the model that embeds them; None: the server's default.

        Returns:
            `len(texts)` lists, each of the model's dimension, of float32 values.

        Raises:
            TypeError: a string was given in place of a list of strings.
            ConnectError: the connection is lost.
            RequestError: the server refused: `Unsupported` where it has no embedding model, or
                cannot choose among models, `UnknownModel` where it has none of this name.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts: embed([text])")
        return await embed(self._connection, list(texts), model)

    async def search(self, text: str, k: int = 10) -> list[Hit]:
        """The user's stored results nearest in meaning to a text, nearest first; at most `k`.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server refused: `Unsupported` where it analyses no results, or has no
                search.
            ValueError: `k` is not from 1 to 1000.
        """
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k must be from 1 to {MAX_HITS}, not {k}")
        return await search(self._connection, text, k)

    async def models(self) -> list[dict[str, Any]]:
        """The server's models, one map per model.

        Each has `name`, `upstreams`, `slots`, `free`, `context` and `default`, as far as known.

        Raises:
            ConnectError: the connection is lost.
            RequestError: `Unsupported`: the server is too old to list models.
        """
        request = Request(wire.Status, {"pool": "knows no models"})
        return [*(await report(self._connection, request)).get("models", [])]

    async def status(self) -> dict[str, Any]:
        """The status report: `server`, `connections`, `requests`, `tokens`, `upstreams`, `models`…

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is shutting down.
        """
        return await report(self._connection, Request(wire.Status))

    async def ping(self) -> float:
        """The time that the server takes to answer, in seconds.

        Raises:
            ConnectError: the connection is lost.
        """
        return await self._connection.ping()

    # Last, since below it the word means this method.
    async def list(
        self, limit: int = 20, *, state: str | None = None, before: str | None = None
    ) -> list[Entry]:
        """The user's newest generations, newest first, running ones included; at most `limit`.

        Args:
            limit: 1 to 1000.
            state: only those that are queued, running, done, failed, cancelled or interrupted.
            before: the id of a generation: only those made before it.

        Raises:
            ConnectError: the connection is lost.
            RequestError: `Unsupported`: the server is too old; `UnknownGeneration`: there is none
                of the id `before`.
            ValueError: `limit` is not from 1 to 1000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"limit must be from 1 to {MAX_LISTED}, not {limit}")
        return await list_generations(self._connection, limit, state, before)
