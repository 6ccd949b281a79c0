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
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import trio

import llcuda_protocol as wire
from llcuda_net.client.calls import Calls
from llcuda_net.client.chat.options import chat_options
from llcuda_net.client.chat.parts import Source
from llcuda_net.client.dial import Servers, addresses_of, tls_context
from llcuda_net.client.reconnecting import ReconnectingConnection
from llcuda_net.client.requests import (
    CHANNELS,
    WINDOW,
    Reading,
    generation_id,
    linger,
    urgency,
    what_to_send,
)
from llcuda_net.client.stream import Opening, Result, Stream, require_attach
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.util.address import Address

#: Seconds to wait for a connection and the server's greeting.
CONNECT_TIMEOUT = 10.0
#: Seconds of silence after which the server is pinged.
KEEPALIVE = 20.0
#: Seconds for which a connection that was lost is tried again.
RECONNECT = 30.0


@asynccontextmanager
async def connect(
    server: str | Address | Sequence[str | Address] = "127.0.0.1:9000",
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
        server: HOST:PORT; an IPv6 address stands in brackets. Of servers that share a database also
            several, as a list or with commas between: they are tried in turn, and what a lost
            connection leaves behind goes on at the next one.
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
    servers = Servers(addresses_of(server), tls_context(tls, tls_ca), timeout)
    started = trio.current_time()
    transport: trio.abc.Stream | None = None
    with trio.move_on_after(timeout):
        transport = await servers.dial()
    if transport is None:
        raise ConnectError(f"cannot connect to {servers}: no answer within {timeout:g} s")
    connection = ReconnectingConnection(
        lambda: servers.name,
        token=token,
        timeout=timeout,
        keepalive=keepalive,
        reconnect=reconnect,
        redial=servers.dial,
        servers=len(servers),
        on_note=on_note,
    )
    left = max(0.0, started + timeout - trio.current_time())
    async with connection.run(transport, left):
        yield Client(connection)


class Client(Calls):
    """A connection to an llcuda-server. `connect` makes one.

    Any number of tasks may use it at once: each request has its own stream on the connection, and
    waits when the server allows no more of them. When the connection is lost, requests under way
    and new ones wait for the next one, for at most `reconnect` seconds.
    """

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

    def generate(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        raw: str | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        system: str | None = None,
        images: Sequence[Source] = (),
        audio: Sequence[Source] = (),
        tools: Iterable[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
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
        previous: str | None = None,
        background: bool = False,
        **params: Any,
    ) -> AbstractAsyncContextManager[Stream]:
        """Start a generation: `async with client.generate("…") as stream`.

        Exactly one of `prompt`, `raw` and `messages` says what to send. The block begins when the
        server has accepted the request; leaving it early cancels the generation on the server,
        unless it runs in the background or `stream.detach()` was called.

        Args:
            prompt: a string is sent as one user message, through the model's chat template where
                it has one; a list of token ids is sent as it is.
            raw: text to be continued as it is, with no template.
            messages: a conversation, in the shapes of OpenAI's API: mappings with `role` and
                `content`, which is a text or a list of parts: texts, and images and recordings as
                `llcuda_net.image` and `llcuda_net.audio` make them, or as bytes or a Path. Answers
                with tool calls (`Result.message`) and their results (`ToolCall.reply`), too.
            system: a system message to put before `prompt` or `messages`.
            images, audio: go with `prompt`: each the bytes, the path or a data: URL of a PNG, JPEG,
                WebP or GIF, or of a WAV or MP3. The model must be one that takes them.
            tools: functions that the model may ask for: OpenAI's shape, or what is in `function`
                there: `name`, `description` and `parameters`, a JSON schema. What it asks for is in
                `Stream.tool_calls` and `Result.tool_calls`.
            tool_choice: "auto", "none", "required", or the name of one of the tools.
            parallel_tool_calls: whether it may ask for several at once.
            chat_template_kwargs: variables of the chat template, as `{"enable_thinking": False}`.
            reasoning_effort: how much it thinks first, in the words of the model: "low", "high"…
                What it thinks is in `Stream.reasoning`.
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
            previous: the id of an earlier generation that is over (`Stream.id`, `Result.id`): its
                conversation goes on with `prompt` or `messages`. The server puts before them what
                was asked and answered there, and all that came before that. A system message here
                takes the place of the one there. The model and the options of the chat (tools, but
                not `tool_choice`) are those of the conversation unless they are given; parameters
                are not. It may have been cut or cancelled.
            background: the generation goes on to its end, whether or not somebody reads it: leave
                the block as soon as you have `stream.id`, and `attach` reads it later. It is
                `on_disconnect="continue"`, and `detach` at the end of the block.
            params: sampling parameters by llama-server's names: `n_predict`, `temperature`,
                `top_k`, `top_p`, `min_p`, `seed`, `stop`, `grammar`, `json_schema`, `n_probs`…

        Raises:
            TypeError: not exactly one of the three was given, or what only goes with another.
            ConfigError: an image or a recording is none, or cannot be read.
            ValueError: `on_disconnect` or `priority` is none of these, or `background` goes with
                another `on_disconnect`.
            ConnectError: the connection is lost, before or while the stream is read, and could not
                be made again in time.
            RequestError: the server refused the request or could not complete it; its class and
                `code` say why, and `retry` whether trying again may help: `Overloaded`,
                `UpstreamError`, `ContextExceeded`… `UnknownGeneration`: there is no `previous` of
                this id, and `InvalidRequest`: it still runs. `Unsupported`, before anything is
                sent, where the server is too old for what is asked.
        """
        chat = chat_options(
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            chat_template_kwargs=chat_template_kwargs,
            reasoning_effort=reasoning_effort,
            inherits=previous is not None,
        )
        if background:
            if on_disconnect not in (None, "continue"):
                raise ValueError("background=True goes on to the end: leave on_disconnect out")
            on_disconnect = "continue"
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
            channels=CHANNELS in self.features,
            **what_to_send(prompt, raw, messages, system, images, audio, chat, previous),
        )
        return Opening(self._connection, request, detaches=background)

    def attach(
        self,
        generation: str,
        first: int = 0,
        *,
        epoch: int | None = None,
        tokens: bool = False,
        durable: bool = False,
        splices: bool = False,
    ) -> AbstractAsyncContextManager[Stream]:
        """Read an existing generation, running or over: `async with client.attach(id)`.

        Any number of clients may read one at once. Leaving the block early leaves the generation
        alone; `stream.cancel()` stops it, for all.

        Args:
            generation: its id: `Stream.id` of whoever started it. The ids of answers over HTTP
                (`chatcmpl-…`, `resp_…`, `msg_…`) are taken, too, here and wherever an id is.
            first: sequence number of the first piece to read; one that does not exist yet is
                waited for.
            epoch: `Stream.epoch` of the stream that the pieces before `first` are from: where they
                are not as they were, after a power cut, or the loss of a server of a cluster, it is
                refused with `Ahead`, and not continued behind other pieces. None: nothing was read.
            tokens, durable, splices: as for `generate`.

        Raises:
            ConnectError: as for `generate`.
            RequestError: as for `generate`; `UnknownGeneration` when there is none of this id (any
                more), `Unsupported` from a server that is too old.
        """
        request = wire.Attach(
            0,
            generation_id(generation),
            WINDOW,
            first,
            epoch,
            tokens=tokens,
            durable=durable,
            splices=splices and "splice" in self.features,
            channels=CHANNELS in self.features,
        )
        return Opening(self._connection, request, detaches=True)

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
        reading = Reading(wire.Attach(0, generation_id(generation), 0))
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
