"""The server: listeners and sessions on one side, the upstream on the other, generations between.

The way of a request: session -> submit -> admission -> upstream -> Generation.extend -> streams ->
outbox. Each generation runs in the server's own nursery, since it belongs to no connection.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog
import trio

from llcuda_net import embedding, params
from llcuda_net.admission import Admission, Ticket
from llcuda_net.errors import RequestError
from llcuda_net.generations import Generation, State
from llcuda_net.keeping import Keeper
from llcuda_net.outbox import Outbox
from llcuda_net.session import Session
from llcuda_net.settings import Settings
from llcuda_net.storage.records import Level
from llcuda_net.upstream.completion import CompletionEvent
from llcuda_net.upstream.hub import StreamHub
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_protocol import ErrorCode, Generate

log = structlog.get_logger(__name__)

#: Slots assumed while the upstream has not said how many it has.
_SLOTS_UNKNOWN = 1
#: Seconds for clients to take what they are told at the end of a drain.
_FAREWELL = 1.0
#: Seconds that an upstream may hold up the start.
_PREPARE = 3.0
#: Connections that may be in the handshake at once; one more ends the oldest of them.
MAX_GREETING = 256


class Server:
    """Everything that lives as long as the process.

    Args:
        settings: see settings.py.
        upstream: where requests go.
        hub: reads the upstream's token streams; the server runs it.
        tokens: any of these lets a client in; none: everybody may come in.
        keeper: keeps generations and results; without it nothing is kept.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        hub: StreamHub,
        tokens: Sequence[str] = (),
        keeper: Keeper | None = None,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        #: Outboxes with frames that no flush has seen yet.
        self.unflushed: set[Outbox] = set()
        #: How often the upstream was started again, where that is in our hands.
        self.upstream_restarts: Callable[[], int] = lambda: 0
        self.agent = f"llcuda-server/{package_version()}"
        self._upstream = upstream
        self._hub = hub
        self._keeper = keeper if keeper is not None else Keeper(None, Level.MEMORY)
        #: Generations whose log has grown and whose streams have not been told.
        self._grown: set[Generation] = set()
        self._strict_work = trio.Event()
        self._admission = Admission(_SLOTS_UNKNOWN, settings.max_queue)
        self._greeting: OrderedDict[Session, None] = OrderedDict()
        self._sessions: set[Session] = set()
        self._generations: set[Generation] = set()
        self._session_count = 0
        self._ended: Counter[State] = Counter()
        self._tokens_streamed = 0
        self._started = trio.current_time()
        self._draining = False
        self._nursery: trio.Nursery
        hub.after_batch = self.flush

    # -- life ---------------------------------------------------------------------------------

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `drain` has ended, or until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._hub.run)
            if self._keeper.strict:
                self._nursery.start_soon(self._sync_strictly)
            self._accepting = trio.CancelScope()
            self._nursery.start_soon(self._accept, listeners)
            task_status.started()

    async def _accept(self, listeners: Sequence[trio.abc.Listener[Any]]) -> None:
        with self._accepting:
            # Sleeps and goes on when descriptors run out (EMFILE and its kin).
            await trio.serve_listeners(self._serve, list(listeners), handler_nursery=self._nursery)

    async def drain(self, grace: float) -> None:
        """Take nothing new, let what runs come to its end for `grace` seconds, then stop.

        What has not ended by then is handed back to its client, as an error that may be retried.
        """
        if self._draining:
            return
        self._draining = True
        self._accepting.cancel()
        log.info("draining", seconds=grace, running=len(self._generations))
        for session in self._sessions:
            session.go_away(grace)
        await self._settle(grace)
        error = _shutting_down("the server stopped before the end; try again later")
        for session in tuple(self._sessions):
            session.hand_back(error)
        for generation in self._generations:
            generation.hand_back(error)
        await self._settle(_FAREWELL)
        self._nursery.cancel_scope.cancel()

    async def _settle(self, seconds: float) -> None:
        """Wait, for a bounded time, until nothing runs and everything has been sent."""
        with trio.move_on_after(seconds):
            # Polled: it takes many parts to be quiet, and happens once in a server's life.
            while self._generations or any(s.busy for s in self._sessions):  # noqa: ASYNC110
                await trio.sleep(0.02)

    def flush(self) -> None:
        """Keep what has come since the last time, then send it."""
        if self._grown:
            self._show_grown()
        while self.unflushed:
            self.unflushed.pop().flush()

    def _show_grown(self) -> None:
        """Write what has grown to the journal, and only then let the streams have it."""
        try:
            self._keeper.write()
        except RequestError as error:
            for generation in self._grown:
                generation.hand_back(error)
            self._grown.clear()
            return
        if self._keeper.strict:
            self._strict_work.set()
            return
        while self._grown:
            generation = self._grown.pop()
            generation.show(len(generation.pieces))

    async def _sync_strictly(self) -> None:
        """At the level strict: have the disk take tokens before they are sent."""
        while True:
            await self._strict_work.wait()
            self._strict_work = trio.Event()
            grown = [(generation, len(generation.pieces)) for generation in self._grown]
            self._grown.clear()
            try:
                await self._keeper.sync()
            except RequestError as error:
                for generation, _ in grown:
                    generation.hand_back(error)
                continue
            for generation, count in grown:
                if not generation.ended:
                    generation.show(count)
            self.flush()

    # -- sessions -----------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether one more client would be too many."""
        return len(self._sessions) >= self.settings.max_connections

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self._session_count += 1
        number = self._session_count
        session = Session(self, stream, number)
        self._greeting[session] = None
        if len(self._greeting) > MAX_GREETING:
            # A client that means it has greeted long before it becomes the oldest.
            oldest, _ = self._greeting.popitem(last=False)
            oldest.scope.cancel()
        try:
            await session.run()
        except Exception:
            log.exception("session_crashed", session=number)
        finally:
            self._greeting.pop(session, None)
            self._sessions.discard(session)

    def session_greeted(self, session: Session) -> None:
        """A session's client has been let in."""
        self._greeting.pop(session, None)
        self._sessions.add(session)
        if self._draining:
            session.go_away(self.settings.drain_seconds)

    # -- requests -----------------------------------------------------------------------------

    def submit(self, request: Generate) -> tuple[Generation, Ticket]:
        """Start a generation.

        Raises:
            RequestError: the request is wrong, the queue is full, or the server is stopping.
        """
        if self._draining:
            raise _shutting_down("the server is shutting down; try again later")
        _check_prompt(request)
        properties = self._upstream.properties
        checked = params.check(request.params, properties.context if properties else None)
        timeout = self.settings.timeout
        if request.timeout is not None:
            timeout = min(timeout, request.timeout)
        generation = Generation(request.prompt, request.messages, checked, timeout)
        generation.level = str(self._keeper.level)
        ticket = self._admission.enter()
        generation.position = ticket.position
        try:
            self._keeper.start(generation)
        except BaseException:
            self._admission.leave(ticket)
            raise
        self._generations.add(generation)
        self._nursery.start_soon(self._run, generation, ticket)
        text = request.prompt if request.messages is None else request.messages
        # Whoever asked for the text must get it at the default level.
        tell = log.info if self.settings.log_prompts else log.debug
        tell(
            "generation_started",
            generation=generation.id,
            position=ticket.position,
            params=sorted(checked),
            **({"prompt": text} if self.settings.log_prompts else {}),
        )
        return generation, ticket

    async def _run(self, generation: Generation, ticket: Ticket) -> None:
        try:
            state, error = await self._attempt(generation, ticket)
            generation.times.over = trio.current_time()
            # A generation that was refused before it was accepted is kept, too: it has failed.
            kept = True
            try:
                with trio.CancelScope(shield=True):
                    await self._keeper.finish(
                        generation,
                        state,
                        error,
                        properties=self._upstream.properties,
                        upstream=self._upstream.base_url,
                    )
            except RequestError as refusal:
                state, error, kept = State.FAILED, error or refusal, False
            generation.times.stored = trio.current_time()
            generation.end(state, error, kept=kept)
        finally:
            self._generations.discard(generation)
            self._grown.discard(generation)
        self._count(generation)
        self.flush()

    async def _attempt(
        self, generation: Generation, ticket: Ticket
    ) -> tuple[State, RequestError | None]:
        """Run it; how it ended."""
        try:
            with trio.move_on_after(generation.timeout) as deadline, generation.scope:
                await self._keep(generation, ticket)
                async with ticket:
                    generation.dispatched()
                    await self._complete(generation)
                return State.DONE, None
            if deadline.cancelled_caught:
                return State.FAILED, _too_late(generation.timeout)
            return State.CANCELLED if generation.error is None else State.FAILED, generation.error
        except RequestError as error:
            return State.FAILED, error
        except Exception as error:
            log.exception("generation_crashed", generation=generation.id)
            bug = RequestError(ErrorCode.INTERNAL, f"a bug: {type(error).__name__}")
            return State.FAILED, bug

    async def _keep(self, generation: Generation, ticket: Ticket) -> None:
        try:
            await self._keeper.accepted(generation)
        except BaseException:
            self._admission.leave(ticket)
            raise
        generation.accept()
        self.flush()

    def _extend(self, generation: Generation, events: list[CompletionEvent]) -> None:
        first = len(generation.pieces)
        if generation.extend(events):
            self._keeper.grew(generation, first)
            self._grown.add(generation)

    async def _complete(self, generation: Generation) -> None:
        upstream = self._upstream
        properties = await self._properties()
        checked = params.check(generation.params, properties.context)
        prompt = generation.prompt
        if generation.messages is not None:
            prompt = await self._render(generation.messages)
            generation.times.rendered = trio.current_time()
        assert prompt is not None
        on_events = functools.partial(self._extend, generation)
        await upstream.complete(prompt, checked, on_events, generation.sent)

    async def _render(self, messages: list[dict[str, str]]) -> str:
        properties = await self._properties()
        if properties.has_template:
            return await self._upstream.render(messages)
        if len(messages) == 1 and messages[0]["role"] == "user":
            return messages[0]["content"]
        raise RequestError(
            ErrorCode.UNSUPPORTED,
            f"the model {properties.model} has no chat template; send one message, or a raw prompt",
        )

    async def _properties(self) -> Properties:
        properties = await self._upstream.ask()
        self._admission.set_slots(properties.slots)
        return properties

    async def prepare(self) -> Properties | None:
        """Ask the upstream what it is, so that the first request need not wait; None: not there."""
        reason = f"no answer within {_PREPARE:g} s"
        try:
            with trio.move_on_after(_PREPARE):
                return await self._properties()
        except RequestError as error:
            reason = error.message
        log.warning("upstream_not_ready", url=self._upstream.base_url, reason=reason)
        return None

    def _count(self, generation: Generation) -> None:
        self._ended[generation.state] += 1
        self._tokens_streamed += len(generation.pieces)
        error = generation.error
        log.info(
            "generation_ended",
            generation=generation.id,
            state=generation.state,
            pieces=len(generation.pieces),
            seconds=round(trio.current_time() - generation.times.received, 3),
            **({} if error is None else {"code": error.code, "reason": error.message}),
        )

    async def embed(self, texts: list[str]) -> list[bytes]:
        """A vector a text, float32, little-endian.

        Raises:
            RequestError: as `submit`, or the upstream gives no embeddings.
        """
        if self._draining:
            raise _shutting_down("the server is shutting down; try again later")
        vectors: list[bytes] = []
        with trio.move_on_after(self.settings.timeout) as deadline:
            await self._properties()
            vectors = await embedding.embed(texts, self._upstream, self._admission)
        if deadline.cancelled_caught:
            raise _too_late(self.settings.timeout)
        return vectors

    async def report(self) -> dict[str, Any]:
        """What a status request is answered with; SPEC.md names the keys."""
        upstream = self._upstream
        properties = None
        with contextlib.suppress(RequestError), trio.move_on_after(2):
            properties = await self._properties()
        return {
            "server": {
                "version": package_version(),
                "pid": os.getpid(),
                "uptime": round(trio.current_time() - self._started, 3),
                "draining": self._draining,
            },
            "connections": len(self._sessions),
            "requests": {
                "running": self._admission.running,
                "queued": self._admission.queued,
                "done": self._ended[State.DONE],
                "failed": self._ended[State.FAILED],
                "cancelled": self._ended[State.CANCELLED],
            },
            "tokens": self._tokens_streamed + sum(len(g.pieces) for g in self._generations),
            "upstreams": [
                {
                    "url": upstream.base_url,
                    "ready": properties is not None,
                    "model": properties.model if properties else None,
                    "slots": properties.slots if properties else None,
                    "context": properties.context if properties else None,
                    "restarts": self.upstream_restarts(),
                }
            ],
        }


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("llcuda-net")
    except PackageNotFoundError:
        return "0+unknown"


def _shutting_down(message: str) -> RequestError:
    return RequestError(ErrorCode.SHUTTING_DOWN, message, retry=True)


def _too_late(seconds: float) -> RequestError:
    return RequestError(ErrorCode.TIMEOUT, f"not finished in {seconds:g} s", retry=True)


def _check_prompt(request: Generate) -> None:
    if (request.prompt is None) == (request.messages is None):
        raise RequestError(ErrorCode.INVALID_REQUEST, "give a prompt or messages, one of the two")
    messages = request.messages
    if not (request.prompt or messages) or (messages and not messages[-1]["content"]):
        raise RequestError(ErrorCode.INVALID_REQUEST, "the prompt is empty")
