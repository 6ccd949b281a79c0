"""The server: listeners and sessions on one side, the upstream on the other, generations between.

The way of a request: session -> submit -> Runner -> upstream -> Generation.extend -> Publisher ->
streams -> outbox. Each generation runs in the server's own nursery, since it belongs to no
connection.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakValueDictionary

import structlog
import trio

from llcuda_net import embedding, intake
from llcuda_net.admission import Admission, Ticket
from llcuda_net.analysis import Analyst
from llcuda_net.errors import RequestError
from llcuda_net.generations import Generation, State
from llcuda_net.keeping import Keeper
from llcuda_net.lone import Lone
from llcuda_net.outbox import Outbox
from llcuda_net.publishing import Publisher
from llcuda_net.registry import Registry
from llcuda_net.resuming import Resumer
from llcuda_net.runner import Runner, too_late
from llcuda_net.semantic import Found
from llcuda_net.session import Session
from llcuda_net.settings import Settings
from llcuda_net.storage.pipeline import Recovered
from llcuda_net.storage.records import Level
from llcuda_net.upstream.fingerprint import Fingerprint, Told
from llcuda_net.upstream.hub import StreamHub
from llcuda_net.upstream.interface import Properties, Upstream
from llcuda_net.watching import Standing, Watches
from llcuda_protocol import Attach, ErrorCode, Generate
from llcuda_protocol.kinds import MAX_LINGER

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
        fingerprint: what is known of the upstream's model.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        hub: StreamHub,
        tokens: Sequence[str] = (),
        keeper: Keeper | None = None,
        fingerprint: Fingerprint | None = None,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        #: How often the upstream was started again, where that is in our hands.
        self.upstream_restarts: Callable[[], int] = lambda: 0
        self.agent = f"llcuda-server/{package_version()}"
        self._upstream = upstream
        self._hub = hub
        self._keeper = keeper if keeper is not None else Keeper(None, Level.MEMORY)
        self._publisher = Publisher(self._keeper)
        #: Outboxes with frames that no flush has seen yet.
        self.unflushed: set[Outbox] = self._publisher.unflushed
        self._admission = Admission(_SLOTS_UNKNOWN, settings.max_queue)
        self._registry = Registry()
        self._runner = Runner(
            upstream,
            self._admission,
            self._keeper,
            self._publisher,
            self._registry,
            known := fingerprint or Told(upstream),
        )
        #: Analyses results and searches them; None where none are kept, or that is not wanted.
        self.analyst: Analyst | None = None
        if settings.analysis and self._keeper.keeps:
            self.analyst = Analyst(self._keeper, upstream, self._admission, known)
        self._resumer = Resumer(self._runner, upstream, self._admission, self.left)
        self._finding = trio.Lock()
        self._replayed: WeakValueDictionary[str, Generation] = WeakValueDictionary()
        self._greeting: OrderedDict[Session, None] = OrderedDict()
        self._sessions: set[Session] = set()
        self._session_count = 0
        self._ended: Counter[State] = Counter()
        self._tokens_streamed = 0
        self._started = trio.current_time()
        self._draining = False
        #: Told of each request when it is over.
        self.watch = Watches()
        #: How we stand, for whoever watches.
        self._pool = Lone(
            settings.upstream or "engine",
            upstream,
            self._admission,
            lambda: self.upstream_restarts(),
        )
        self.standing = Standing(
            settings, self._pool, self._admission, self._registry, self._sessions, self._keeper
        )
        self.standing.users = self._pool.users
        self._nursery: trio.Nursery
        hub.after_batch = self._publisher.flush

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
            self._nursery.start_soon(self._pool.run)
            self._nursery.start_soon(self._publisher.sync_strictly)
            self._nursery.start_soon(self._registry.run)
            if self.analyst is not None:
                self._nursery.start_soon(self.analyst.run)
            for entry in self._keeper.recovered:
                self._resume(entry)
            # Whoever attaches is told of the new run, so the next server must know of it, too.
            with contextlib.suppress(RequestError):  # without it none of them goes on
                await self._keeper.sync()
            self._accepting = trio.CancelScope()
            self._nursery.start_soon(self._accept, listeners)
            task_status.started()

    async def _accept(self, listeners: Sequence[trio.abc.Listener[Any]]) -> None:
        with self._accepting:
            # Sleeps and goes on when descriptors run out (EMFILE and its kin).
            await trio.serve_listeners(self._serve, list(listeners), handler_nursery=self._nursery)

    async def drain(self, grace: float) -> None:
        """Take nothing new, let what runs come to its end for `grace` seconds, then stop.

        What has not ended by then is left in the journal for the next server, or, where it is not
        journalled, fails; its clients get an error that may be retried.
        """
        if self._draining:
            return
        self._draining = self.standing.draining = True
        self._accepting.cancel()
        log.info("draining", seconds=grace, running=len(self._registry))
        for session in self._sessions:
            session.go_away(grace)
        for generation in self._registry:
            if generation.stranded:
                generation.suspend()
        await self._settle(grace)
        error = _shutting_down("the server stopped before the end; try again later")
        for session in tuple(self._sessions):
            session.hand_back(error)
        for generation in self._registry:
            if generation.level.journalled:
                generation.suspend()
            else:
                generation.hand_back(error)
        await self._settle(_FAREWELL)
        self._nursery.cancel_scope.cancel()

    async def _settle(self, seconds: float) -> None:
        """Wait, for a bounded time, until nothing runs and everything has been sent."""
        with trio.move_on_after(seconds):
            # Polled: it takes many parts to be quiet, and happens once in a server's life.
            while len(self._registry) or any(s.busy for s in self._sessions):  # noqa: ASYNC110
                await trio.sleep(0.02)

    # -- sessions -----------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether one more client would be too many."""
        return len(self._sessions) >= self.settings.max_connections

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self._session_count += 1
        number = self.standing.connections_opened = self._session_count
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

    def submit(self, request: Generate) -> Generation:
        """Start a generation, or join the one that has the same key.

        Raises:
            RequestError: the request is wrong, the queue is full, or the server is stopping.
        """
        with self.watch.submitting():
            return self._submit(request)

    def _submit(self, request: Generate) -> Generation:
        if self._draining:
            raise _shutting_down("the server is shutting down; try again later")
        properties = self._upstream.properties
        generation = intake.from_request(
            request,
            self.settings,
            self._keeper.level(request.level),
            properties.context if properties else None,
            owner="",
        )
        if request.key is not None:
            same = self._registry.find_by_key(
                request.key, generation.request_hash, generation.owner
            )
            if same is not None:
                return same
            if request.fresh:
                self._registry.check_fresh(request.key, generation.owner)
        ticket = self._enter(generation)
        self._start(generation, functools.partial(self._runner.run, generation, ticket))
        text = request.prompt if request.messages is None else request.messages
        # Whoever asked for the text must get it at the default level.
        tell = log.info if self.settings.log_prompts else log.debug
        tell(
            "generation_started",
            generation=generation.id,
            position=ticket.position,
            params=sorted(generation.params),
            **({"prompt": text} if self.settings.log_prompts else {}),
        )
        return generation

    def _enter(self, generation: Generation, *, always: bool = False) -> Ticket:
        """A place in the queue for a generation, which its readers are told."""

        def moved(position: int) -> None:
            generation.queued(position)
            self._publisher.flush()

        ticket = self._admission.enter(always=always)
        ticket.on_position = moved
        generation.position = ticket.position
        return ticket

    def _start(self, generation: Generation, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def to_its_end() -> None:
            await run()
            if not generation.suspended:
                self._count(generation)

        self._registry.add(generation)
        self._nursery.start_soon(to_its_end)

    def _resume(self, entry: Recovered) -> None:
        """Go on with a generation that ran when the last server ended."""
        generation = intake.from_journal(entry, self.settings)
        self._keeper.resume(generation, entry.kept)
        if entry.concluded is None:
            # At once: a client that has read more than the journal holds is told by it. Also of
            # one that seems never to have run: a power cut may have taken all that it said.
            generation.splice()
            self._keeper.spliced(generation, self._upstream.base_url)
        log.info(
            "generation_resumed",
            generation=generation.id,
            pieces=len(generation.pieces),
            gap=entry.gap,
        )
        # Places are taken in the order in which they were taken first.
        ticket = self._enter(generation, always=True)
        self._start(generation, functools.partial(self._resumer.run, generation, entry, ticket))

    async def find(self, request: Attach) -> Generation:
        """The generation that a client wants to read.

        Raises:
            RequestError: there is none, or the client has more of it than there is.
        """
        if self._draining:
            raise _shutting_down("the server is shutting down; attach again later")
        found = self._registry.find(request.id, "")
        if found is None:
            found = await self._stored(request.id)
        intake.check_position(found, request.first, request.epoch)
        return found

    async def _stored(self, id_: str) -> Generation:
        """One that is over; all who read it share what was read from the store."""
        async with self._finding:
            found = self._replayed.get(id_) or await self._keeper.find(id_, "")
        if found is None:
            raise RequestError(
                ErrorCode.UNKNOWN_GENERATION,
                f"there is no generation {id_!r} here: it never was, was kept in memory only, or "
                "its result was deleted",
            )
        self._replayed[id_] = found
        return found

    def left(self, generation: Generation) -> None:
        """Nobody may read a generation now: begin to count the time that it goes on for."""
        seconds = generation.on_disconnect
        if generation.readers or generation.ended or seconds >= MAX_LINGER:
            return
        if seconds <= 0:
            generation.cancel()
        elif generation.abandoned is None:
            generation.abandoned = trio.CancelScope()
            self._nursery.start_soon(self._abandon, generation, generation.abandoned)

    async def _abandon(self, generation: Generation, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(generation.on_disconnect)
            if generation.readers:  # one has come in this very moment
                return
            log.info("generation_abandoned", generation=generation.id)
            generation.cancel()

    async def prepare(self) -> Properties | None:
        """Ask the upstream what it is, so that the first request need not wait; None: not there."""
        reason = f"no answer within {_PREPARE:g} s"
        try:
            with trio.move_on_after(_PREPARE):
                return await self._runner.properties()
        except RequestError as error:
            reason = error.message
        log.warning("upstream_not_ready", url=self._upstream.base_url, reason=reason)
        return None

    def _count(self, generation: Generation) -> None:
        if self.analyst is not None:
            self.analyst.wake()
        self._ended[generation.state] += 1
        self._tokens_streamed += len(generation.pieces)
        self.watch.ended(generation)
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
        with self.watch.answering("embed"):
            return await self._embed(texts)

    async def _embed(self, texts: list[str]) -> list[bytes]:
        if self._draining:
            raise _shutting_down("the server is shutting down; try again later")
        vectors: list[bytes] = []
        with trio.move_on_after(self.settings.timeout) as deadline:
            await self._runner.properties()
            vectors = await embedding.embed(texts, self._upstream, self._admission)
        if deadline.cancelled_caught:
            raise too_late(self.settings.timeout)
        return vectors

    async def search(self, text: str, k: int) -> Found:
        """The k results nearest to a text.

        Raises:
            RequestError: as `embed`, or nothing is analysed here.
        """
        with self.watch.answering("search"):
            return await self._search(text, k)

    async def _search(self, text: str, k: int) -> Found:
        if self._draining:
            raise _shutting_down("the server is shutting down; try again later")
        if self.analyst is None:
            raise RequestError(
                ErrorCode.UNSUPPORTED,
                "this server analyses no results: it was started with --no-analysis, or keeps none",
            )
        if not text.strip():
            raise RequestError(ErrorCode.INVALID_REQUEST, "the text to search for is empty")
        with trio.move_on_after(self.settings.timeout):
            await self._runner.properties()
            return await self.analyst.search(text, k)
        raise too_late(self.settings.timeout)

    async def report(self) -> dict[str, Any]:
        """What a status request is answered with; SPEC.md names the keys."""
        upstream = self._upstream
        properties = None
        analysis: dict[str, Any] = {}
        with contextlib.suppress(RequestError), trio.move_on_after(2):
            properties = await self._runner.properties()
        if self.analyst is not None:
            with contextlib.suppress(RequestError), trio.move_on_after(2):
                analysis["analysis"] = await self.analyst.report()
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
                "interrupted": self._ended[State.INTERRUPTED],
            },
            "tokens": self._tokens_streamed + sum(len(g.pieces) for g in self._registry),
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
            **analysis,
        }


def package_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("llcuda-net")
    except PackageNotFoundError:
        return "0+unknown"


def _shutting_down(message: str) -> RequestError:
    return RequestError(ErrorCode.SHUTTING_DOWN, message, retry=True)
