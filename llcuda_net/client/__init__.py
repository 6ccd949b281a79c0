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
import sys
from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.address import Address, parse_address
from llcuda_net.client.dial import dial, tls_context
from llcuda_net.client.link import WINDOW, Link
from llcuda_net.client.stream import Opening, Result, Stream
from llcuda_net.errors import ConnectError, RequestError

#: Seconds to wait for a connection and the server's greeting.
CONNECT_TIMEOUT = 10.0
#: Seconds of silence after which the server is asked for a sign of life.
KEEPALIVE = 20.0


@asynccontextmanager
async def connect(
    server: str | Address = "127.0.0.1:9000",
    *,
    tls: bool | ssl.SSLContext = False,
    tls_ca: str | Path | None = None,
    token: str | None = None,
    timeout: float = CONNECT_TIMEOUT,
    keepalive: float = KEEPALIVE,
) -> AsyncIterator[Client]:
    """Connect to an llcuda-server; leaving the block closes the connection.

    Generations that still run when the block is left are cancelled on the server.

    Args:
        server: HOST:PORT; an IPv6 address stands in brackets.
        tls: whether to use TLS, or an SSLContext to use as it is.
        tls_ca: PEM file with the certificates to trust in place of the system's; implies TLS.
        token: the secret that the server wants, if it wants one.
        timeout: seconds for connecting, TLS and the server's greeting together.
        keepalive: seconds of silence after which the server is pinged; after as many again
            without a sign of life the connection counts as lost.

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
    left = max(0.0, started + timeout - trio.current_time())
    async with Client.over(
        transport, name=str(address), token=token, timeout=left, keepalive=keepalive
    ) as client:
        yield client


class Client:
    """A connection to an llcuda-server. `connect` makes one.

    Any number of tasks may use it at once: each request has its own stream on the connection, and
    waits when the server allows no more of them.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

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
    ) -> AsyncIterator[Client]:
        """A client over a byte stream that is already open, which it will close.

        Args:
            transport: any trio stream with an llcuda-server at its other end.
            name: what messages call the server.
            token, timeout, keepalive: as for `connect`.

        Raises:
            ConnectError: there is no llcuda-server at the other end.
            RequestError: the server refused the connection.
        """
        link = Link(transport, name, keepalive)
        async with link.run(token, timeout):
            yield cls(link)

    def generate(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        raw: str | None = None,
        messages: Iterable[Mapping[str, str]] | None = None,
        system: str | None = None,
        timeout: float | None = None,
        tokens: bool = False,
        **params: Any,
    ) -> AbstractAsyncContextManager[Stream]:
        """Start a generation: `async with client.generate("…") as stream`.

        Exactly one of `prompt`, `raw` and `messages` says what to send. The block begins when the
        server has accepted the request; leaving it early cancels the generation on the server.

        Args:
            prompt: a string is sent as one user message, through the model's chat template where
                it has one; a list of token ids is sent as it is.
            raw: text to be continued as it is, with no template.
            messages: a conversation: mappings with `role` and `content`.
            system: a system message to put before `prompt` or `messages`.
            timeout: seconds for the whole request; None leaves it to the server.
            tokens: also give the token ids (`Piece.id`, `Result.ids`).
            params: sampling parameters by llama-server's names: `n_predict`, `temperature`,
                `top_k`, `top_p`, `min_p`, `seed`, `stop`, `grammar`, `json_schema`, `n_probs`…

        Raises:
            TypeError: not exactly one of the three was given.
            ConnectError: the connection is lost, before or while the stream is read.
            RequestError: the server refused the request or could not complete it; `code` says
                why, and `retry` whether trying again may help.
        """
        chosen = _what_to_send(prompt, raw, messages, system)

        def request(number: int) -> wire.Generate:
            return wire.Generate(
                number, WINDOW, params=params, timeout=timeout, tokens=tokens, **chosen
            )

        return Opening(self._link, request)

    async def complete(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Result:
        """The whole answer at once. Takes what `generate` takes, and raises what it raises."""
        async with self.generate(prompt, **arguments) as stream:
            while await stream.take():
                pass
        return stream.result

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector for each text, in their order.

        Raises:
            TypeError: a string was given in place of a list of strings.
            ConnectError: the connection is lost.
            RequestError: the server refused: code `unsupported` where it has no embedding model.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts: embed([text])")
        wanted = list(texts)
        if not wanted:
            await trio.lowlevel.checkpoint()
            return []
        vectors: list[list[float]] = []
        channel = await self._link.open(lambda number: wire.Embed(number, wanted))
        try:
            while isinstance(frame := await channel.receive(), wire.Vectors):
                vectors += [_floats(vector) for vector in frame.vectors]
        finally:
            channel.close()
        if len(vectors) != len(wanted):
            raise ConnectError(
                f"{self._link.name} sent {len(vectors)} vectors for {len(wanted)} texts"
            )
        return vectors

    async def status(self) -> dict[str, Any]:
        """How the server is: `server`, `connections`, `requests`, `tokens`, `upstreams`.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is shutting down.
        """
        channel = await self._link.open(wire.Status)
        try:
            report = await channel.receive()
        finally:
            channel.close()
        assert isinstance(report, wire.Report)  # the protocol allows nothing else there
        return report.report

    async def ping(self) -> float:
        """Ask the server for a sign of life; the time that it took, in seconds.

        Raises:
            ConnectError: the connection is lost.
        """
        return await self._link.ping()


def _what_to_send(
    prompt: str | Sequence[int] | None,
    raw: str | None,
    messages: Iterable[Mapping[str, str]] | None,
    system: str | None,
) -> dict[str, Any]:
    """The request's `prompt` or `messages`."""
    if sum(given is not None for given in (prompt, raw, messages)) != 1:
        raise TypeError("give exactly one of prompt, raw= and messages=")
    chat: list[dict[str, str]] | None = None
    text: str | list[int] | None = raw
    if messages is not None:
        chat = [dict(message) for message in messages]
    elif isinstance(prompt, str):
        chat = [{"role": "user", "content": prompt}] if prompt else []
    elif prompt is not None:
        text = list(prompt)
    if not chat and not text:
        raise RequestError(wire.ErrorCode.INVALID_REQUEST, "the prompt is empty")
    if chat is None:
        if system is not None:
            raise TypeError("system= goes with a chat, not with raw text or token ids")
        return {"prompt": text}
    before = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": before + chat}


def _floats(vector: bytes) -> list[float]:
    """A vector of the wire, float32 little-endian."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
