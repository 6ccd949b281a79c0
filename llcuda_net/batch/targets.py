"""Where requests go: an llcuda-server, a llama-server directly, or nowhere.

A target answers one request and notes in its record when it was sent and when each piece arrived;
it decides nothing about schedules or outcomes. `open_target` chooses by address: http://… is a
llama-server, HOST:PORT an llcuda-server.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from llcuda_net.batch.record import Record
from llcuda_net.client import Client, connect
from llcuda_net.client.stream import Piece
from llcuda_net.errors import ConnectError, RequestError, Unsupported
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts

Clock = Callable[[], float]
#: llama-server's reasons to stop, as the gateway names them.
_REASONS = {"eos": "stop", "word": "stop", "limit": "length"}


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of itself: the model's name, slots of all upstreams, software version."""

    model: str
    slots: int
    version: str


@dataclass(slots=True)
class Answer:
    """What came back, besides what the record holds."""

    text: str
    reason: str
    model: str | None = None
    id: str | None = None


class Target(Protocol):
    """A server that can be asked.

    `ask` raises RequestError and ConnectError; the record then holds what came before.
    """

    name: str

    async def about(self) -> About:
        """What the server says of itself."""

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """Send a prompt as it is, without a template, and read the whole answer.

        Args:
            params: sampling parameters by llama-server's names.
            record: is filled in: `sent`, `chunks`, `tokens`, `phases` and the counts.
            now: seconds since the run's start.
            more: for an llcuda-server only: `messages` in place of the prompt, `key`.
        """


class Gateway:
    """An llcuda-server, over one or several connections that share the requests in turn."""

    def __init__(self, name: str, clients: list[Client]) -> None:
        self.name = name
        self._clients = clients
        self._next = 0

    async def about(self) -> About:
        """What its status says.

        Raises:
            ConnectError, RequestError: it does not say.
        """
        found = await self._clients[0].status()
        upstreams = found.get("upstreams") or [{}]
        server = found.get("server")
        version = server.get("version") if isinstance(server, dict) else server
        return About(
            str(upstreams[0].get("model") or "unknown"),
            sum(int(each.get("slots") or 0) for each in upstreams),
            f"llcuda-server {version}",
        )

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target."""
        client = self._clients[self._next % len(self._clients)]
        self._next += 1
        # Token ids are sent as they are by the name of prompt, and text by the name of raw.
        what: dict[str, Any] = {"raw" if isinstance(prompt, str) else "prompt": prompt}
        if "messages" in more:
            what = {}
        record.sent = now()
        async with client.generate(**what, **more, **params) as stream:
            try:
                while events := await stream.take():
                    at = now()
                    record.chunks.extend(at for event in events if isinstance(event, Piece))
            except trio.Cancelled:
                if "key" in more:  # it will be asked for again: let it go on
                    soon = trio.CancelScope(shield=True, deadline=trio.current_time() + 1)
                    with soon, suppress(ConnectError, RequestError):
                        await stream.detach()
                raise
        result = stream.result
        record.phases = dict(result.timings)
        record.tokens = result.usage.get("completion_tokens", 0)
        record.prompt_tokens = result.usage.get("prompt_tokens", 0)
        record.cached_tokens = result.usage.get("cached_tokens", 0)
        return Answer(result.text, result.reason, result.model, result.id)


class Direct:
    """A llama-server itself: a connection a request, as the gateway asks it, too."""

    def __init__(self, name: str, server: LlamaServer) -> None:
        self.name = name
        self._server = server

    async def about(self) -> About:
        """What its /props say.

        Raises:
            RequestError: it does not say.
        """
        found = await self._server.ask()
        return About(found.model, found.slots, f"llama-server {found.build}".strip())

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target; `messages` become a prompt by the model's template, `key` means nothing.

        Args:
            more: also `on_text`, called with each piece of the answer as it comes.
        """
        record.sent = now()
        if "messages" in more:
            prompt = await self._render(more["messages"])
        texts: list[str] = []
        last: list[CompletionEvent] = []

        def take(events: list[CompletionEvent]) -> None:
            at = now()
            for event in events:
                if event.content:
                    record.chunks.append(at)
                    texts.append(event.content)
                    if "on_text" in more:
                        more["on_text"](event.content)
                if event.stop:
                    last.append(event)

        await self._server.complete(prompt, params, take, lambda: None)
        final = last[-1]
        record.tokens = final.tokens_predicted
        record.prompt_tokens = final.tokens_evaluated
        if final.timings is not None:
            record.cached_tokens = final.timings.cache_n
            record.phases = {"prompt": final.timings.prompt_ms}
        reason = _REASONS.get(final.stop_type, "stop")
        return Answer("".join(texts), reason, final.model or None)

    async def _render(self, messages: list[dict[str, str]]) -> str:
        """As the gateway does it."""
        properties = await self._server.ask()
        if properties.has_template:
            return await self._server.render(messages)
        if len(messages) == 1 and messages[0]["role"] == "user":
            return messages[0]["content"]
        raise Unsupported(
            f"the model {properties.model} has no chat template; send one message, or a raw prompt",
        )


class Nowhere:
    """A target that answers at once, in this process: what a run of it costs is the client's own.

    It shows how late the client itself is; for what the connection costs besides, there is the
    no-op server in tools.
    """

    name = "nowhere"

    def __init__(self, tokens: int = 16) -> None:
        self._tokens = tokens

    async def about(self) -> About:
        """Nothing."""
        await trio.lowlevel.checkpoint()
        return About("none", sys.maxsize, "nowhere")

    async def ask(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        record: Record,
        now: Clock,
        **more: Any,
    ) -> Answer:
        """See Target."""
        record.sent = now()
        await trio.lowlevel.checkpoint()
        record.chunks.extend([now()] * self._tokens)
        record.tokens = self._tokens
        return Answer("", "length")


@asynccontextmanager
async def open_target(
    server: str,
    *,
    connections: int = 1,
    token: str | None = None,
    tls: bool = False,
    tls_ca: str | None = None,
    api_key: str | None = None,
    stall_timeout: float = 600.0,
    **options: Any,
) -> AsyncIterator[Gateway | Direct]:
    """The target at an address: http:// or https:// is a llama-server, else an llcuda-server.

    Args:
        connections: to an llcuda-server.
        token, tls, tls_ca: for an llcuda-server, as for `llcuda_net.connect`.
        api_key: of a llama-server, where it wants one.
        stall_timeout: seconds without a token before a llama-server is given up.
        options: more for `llcuda_net.connect`.

    Raises:
        ConfigError: the address is none.
        ConnectError: no llcuda-server could be reached there.
        RequestError: no llama-server could be reached there, or the token is wrong.
    """
    async with AsyncExitStack() as stack:
        if server.startswith(("http://", "https://")):
            poller = Poller()
            llama = LlamaServer(
                server, poller, api_key=api_key, timeouts=StreamTimeouts(stall=stall_timeout)
            )
            stack.push_async_callback(llama.aclose)
            nursery = await stack.enter_async_context(in_nursery())
            nursery.start_soon(poller.run)
            await llama.ask()
            yield Direct(server, llama)
            nursery.cancel_scope.cancel()
            return
        clients = [
            await stack.enter_async_context(
                connect(server, token=token, tls=tls, tls_ca=tls_ca, **options)
            )
            for _ in range(max(1, connections))
        ]
        yield Gateway(server, clients)


@asynccontextmanager
async def in_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose body's exception leaves as it is, not in a group; its tasks are cancelled."""
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:
            raised = error
            nursery.cancel_scope.cancel()
    if raised is not None:
        raise raised


def is_failure(error: BaseException) -> bool:
    """Whether an exception of `ask` is the server's or the network's, and not a bug of ours."""
    return isinstance(error, RequestError | ConnectError)
