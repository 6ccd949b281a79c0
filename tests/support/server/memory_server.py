"""A server over memory streams, a scripted upstream, and a client that sees every frame."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.generation.persistence import Persistence
from llcuda_net.server.gateway import Gateway
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import (
    TOOL_CALL,
    Candidate,
    Channel,
    CompletionEvent,
    OnEvents,
    Probabilities,
    Properties,
    Relevance,
    Timings,
)
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import (
    Connection,
    ConnectionClosed,
    Event,
    Frame,
    Generate,
    Hello,
    Limits,
    Report,
    Role,
    Status,
    Tokens,
    Welcome,
)
from tests.support.server.constraint_checks import checks_here

CREDIT = 1 << 20


class FakeUpstream:
    """Answers with the words of the prompt, one token each, at the test's pace.

    Attributes:
        paused: while set, a completion waits for `release` before each token.
        active: completions under way; cancelling one takes it away at once.
        calls: the parameters of each completion.
        answer: what it says in a chat, piece by piece.
        chats: messages and options of each chat.
        advances: what it answers to `advances_grammars`.
        prefills: whether it goes on behind the last message of a chat, if that is asked for.
        ranks: what it answers to `reranks`.
    """

    base_url = "fake://"
    advances = False
    prefills = False
    ranks = False

    def __init__(self, *, slots: int = 4, context: int = 512, template: bool = True) -> None:
        self.properties: Properties | None = Properties("fake", slots, context, template, "test")
        self.poller = Poller()
        self.paused = False
        self.failure: Exception | None = None
        self.fail_after = 0
        self.refusal: Exception | None = None
        self.stuck = False
        self.active = 0
        self.most_active = 0
        self.calls: list[dict[str, Any]] = []
        self.prompts: list[str | list[int]] = []
        self.forgotten = 0
        self.model = "fake"
        self.answer: list[tuple[str, Channel | None]] = []
        self.chats: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
        self._gate = trio.Semaphore(0)

    def release(self, tokens: int = 1) -> None:
        for _ in range(tokens):
            self._gate.release()

    async def ask(self) -> Properties:
        await trio.lowlevel.checkpoint()
        assert self.properties is not None
        return self.properties

    async def check(self) -> None:
        """What `refusal` says; `stuck`: nothing, for ever."""
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        if self.refusal is not None:
            raise self.refusal

    async def slots(self) -> list[bool] | None:
        await trio.lowlevel.checkpoint()
        return None

    def forget(self) -> None:
        self.forgotten += 1

    async def render(
        self, messages: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> str:
        await trio.lowlevel.checkpoint()
        if (options or {}).get("continue_final_message") and not self.prefills:
            messages = [*messages, {"role": "assistant", "content": ""}]
        return " ".join(
            f"{m['role']}: {m.get('reasoning_content', '')}{m['content']}" for m in messages
        )

    async def infill(self, before: str, after: str, params: dict[str, Any]) -> list[int]:
        """Between its marks, which are no bytes."""
        await trio.lowlevel.checkpoint()
        return [257, *before.encode(), 258, *after.encode(), 259]

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
        """A token a byte, and one more in front where `special` is set."""
        await trio.lowlevel.checkpoint()
        return [256] * special + list(text.encode())

    async def tokens(
        self, content: str | list[str | int], *, special: bool, literal: bool, pieces: bool
    ) -> bytes:
        parts = [content] if isinstance(content, str) else content
        ids = [256] * special
        for part in parts:
            ids += [part] if isinstance(part, int) else await self.tokenize(part, special=False)
        found = [{"id": one, "piece": [one % 256]} for one in ids] if pieces else ids
        return json.dumps(found, separators=(",", ":")).encode()

    async def reranks(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.ranks

    async def rerank(self, query: str, documents: list[str]) -> Relevance:
        """The longer a document, the better; it has a token per byte."""
        await trio.lowlevel.checkpoint()
        return Relevance(
            tuple(float(len(one)) for one in documents),
            sum(len(query.encode()) + len(one.encode()) for one in documents),
        )

    async def detokenize(self, ids: list[int]) -> str:
        await trio.lowlevel.checkpoint()
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    async def advances_grammars(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.advances

    async def embed(self, texts: Sequence[str | list[int]]) -> list[list[list[float]]]:
        await trio.lowlevel.checkpoint()
        return [[[float(len(text)), 1.0]] for text in texts]

    async def chat(
        self,
        messages: list[dict[str, Any]],
        options: dict[str, Any],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        self.calls.append(params)
        self.chats.append((messages, options))
        self.active += 1
        try:
            on_sent()
            for i, (piece, channel) in enumerate(self.answer):
                if self.failure is not None and i == self.fail_after:
                    raise self.failure
                if self.paused:
                    await self._gate.acquire()
                else:
                    await trio.lowlevel.checkpoint()
                on_events([CompletionEvent(piece, tokens_predicted=i + 1, channel=channel)])
                self.poller.end_batch()
            calls = any(channel and channel.kind == TOOL_CALL for _, channel in self.answer)
            on_events(
                [
                    CompletionEvent(
                        stop=True,
                        stop_type="tool_calls" if calls else "eos",
                        tokens_predicted=len(self.answer),
                        tokens_evaluated=7,
                        model=self.model,
                    )
                ]
            )
        finally:
            self.active -= 1

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        self.calls.append(params)
        self.prompts.append(prompt)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            on_sent()
            words = str(prompt).split()
            pieces = [w if i == 0 else " " + w for i, w in enumerate(words)]
            for i, piece in enumerate(pieces[: params["n_predict"]]):
                if self.failure is not None and i == self.fail_after:
                    raise self.failure
                if self.paused:
                    await self._gate.acquire()
                else:
                    await trio.lowlevel.checkpoint()
                found = likely(i, params.get("n_probs", 0))
                on_events(
                    [
                        CompletionEvent(
                            content=piece,
                            tokens=[i],
                            tokens_predicted=i + 1,
                            completion_probabilities=found,
                        )
                    ]
                )
                self.poller.end_batch()
            count = min(len(pieces), params["n_predict"])
            on_events(
                [
                    CompletionEvent(
                        stop=True,
                        stop_type="eos" if count == len(pieces) else "limit",
                        tokens_predicted=count,
                        tokens_evaluated=7,
                        model=self.model,
                        timings=Timings(prompt_ms=1.5),
                    )
                ]
            )
        finally:
            self.active -= 1


def likely(token: int, candidates: int) -> list[Probabilities] | None:
    """What the fake says of a token: the more candidates, the larger."""
    if not candidates:
        return None
    top = [Candidate(n, [97], -1.0 - n) for n in range(candidates)]
    return [Probabilities(token, [97], None, None, top)]


class Peer:
    """A client that shows each frame as it comes."""

    def __init__(self, stream: trio.abc.Stream, limits: Limits | None = None) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT, limits)

    async def send(self, *frames: Frame) -> None:
        await self.stream.send_all(b"".join(self.connection.send(frame) for frame in frames))

    async def next(self) -> Event:
        with trio.fail_after(3600):  # of virtual time: a hang becomes a failure
            while (event := self.connection.next_event()) is None:
                self.connection.receive_data(await self.stream.receive_some(65_536))
        return event

    async def greet(self, token: str | None = None) -> Welcome:
        limits = self.connection.limits
        await self.send(Hello([1], limits.max_frame, limits.max_streams, token))
        welcome = await self.next()
        assert isinstance(welcome, Welcome), welcome
        return welcome

    async def until(self, kind: type[Event], stream: int = 1) -> tuple[list[str], Any]:
        """Read up to a frame of one kind on a stream: the pieces before it, and it."""
        pieces: list[str] = []
        while True:
            event = await self.next()
            assert not isinstance(event, ConnectionClosed), "closed before its time"
            if getattr(event, "stream", 0) != stream:
                continue
            if isinstance(event, Tokens):
                pieces += event.pieces
            if isinstance(event, kind):
                return pieces, event

    async def until_closed(self) -> None:
        """Read on until the server closes."""
        with trio.fail_after(3600):
            while True:
                try:
                    data = await self.stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    return
                if not data:
                    return


class MemoryListener(trio.abc.Listener[trio.StapledStream[Any, Any]]):
    """Hands connections in memory to a server.

    Attributes:
        server: which.
    """

    server: Gateway

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](math.inf)

    async def accept(self) -> trio.StapledStream[Any, Any]:
        stream: trio.StapledStream[Any, Any] = await self._receive.receive()
        return stream

    async def aclose(self) -> None:
        await self._receive.aclose()

    def connect(self, limits: Limits | None = None) -> Peer:
        ours, theirs = memory_stream_pair()
        self._send.send_nowait(theirs)
        return Peer(ours, limits)

    def connect_raw(self) -> trio.abc.Stream:
        """A connection of a client that speaks for itself."""
        ours, theirs = memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours

    def connect_unread(self) -> Peer:
        """A connection that takes from the server only what the peer reads."""
        ours, theirs = lockstep_stream_pair()
        self._send.send_nowait(theirs)
        return Peer(ours)


def pool_of(upstream: FakeUpstream | Sequence[Backend]) -> tuple[Pool, Poller]:
    """A pool of one fake, or of members of fakes, and the hub that all of them share."""
    if isinstance(upstream, FakeUpstream):
        return Pool([Backend(UpstreamSpec("fake://", "fake"), upstream)]), upstream.poller
    poller = Poller()
    for backend in upstream:
        assert isinstance(backend.upstream, FakeUpstream)
        backend.upstream.poller = poller
    return Pool(upstream), poller


@contextlib.asynccontextmanager
async def serving(
    upstream: FakeUpstream | Sequence[Backend],
    *,
    users: Users | None = None,
    persistence: Persistence | None = None,
    watched: bool = False,
    **settings: Any,
) -> AsyncIterator[tuple[Gateway, MemoryListener]]:
    """A server on memory streams; cancelled at the end.

    Args:
        watched: run the pool too, which then looks after its members.
    """
    settings.setdefault("analysis", False)  # threads know nothing of virtual time
    listener = MemoryListener()
    pool, poller = pool_of(upstream)
    server = Gateway(Settings(**settings), pool, poller, users, persistence, checks=checks_here())
    async with trio.open_nursery() as nursery:
        if watched:
            await nursery.start(pool.run)
        await nursery.start(server.run, [listener])
        await pool.prepare()
        yield server, listener
        nursery.cancel_scope.cancel()


def ask(text: str = "one two three", stream: int = 1, **changes: Any) -> Generate:
    """A generate frame."""
    changes.setdefault("credit", CREDIT)
    return Generate(stream, prompt=text, **changes)


async def status(listener: MemoryListener) -> dict[str, Any]:
    peer = listener.connect()
    await peer.greet()
    await peer.send(Status(1))
    event = await peer.next()
    assert isinstance(event, Report)
    await peer.stream.aclose()
    return event.report


async def ready(listener: MemoryListener, token: str | None = None) -> Peer:
    peer = listener.connect()
    await peer.greet(token)
    return peer


def paused(slots: int = 1, **options: Any) -> FakeUpstream:
    upstream = FakeUpstream(slots=slots, **options)
    upstream.paused = True
    return upstream


async def all_quiet(server: Gateway, upstream: FakeUpstream, listener: MemoryListener) -> None:
    """Nothing is held on to: no slot, no place in the queue, no generation."""
    await wait_all_tasks_blocked()
    assert upstream.active == 0
    requests = (await status(listener))["requests"]
    assert (requests["running"], requests["queued"]) == (0, 0)
    assert not len(server.registry)
