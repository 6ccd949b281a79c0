"""The gateway: sessions on one side, upstreams on the other, generations between.

The way of a request: session -> submit -> Runner -> Dispatcher -> upstream -> Generation.extend ->
Publisher -> streams -> write buffer. Each generation runs in the gateway's own nursery, since it
belongs to no connection.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.analysis.embedding_backend import EmbeddingBackend
from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User, view_of
from llcuda_net.errors import InvalidRequest, RequestError
from llcuda_net.generation import request as requests
from llcuda_net.generation.dispatcher import need_of
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.memory.budget import Bounds, MemoryBudget
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.generation.persistence import Left, Persistence
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.runner import Resumer, Runner
from llcuda_net.generation.state import Place, State
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.server.batches.runner import BatchRunner
from llcuda_net.server.changes import Changes, Lookout
from llcuda_net.server.cluster.peers.followed import Followed
from llcuda_net.server.drain import drain, shutting_down
from llcuda_net.server.finder import Finder
from llcuda_net.server.http.access import Access
from llcuda_net.server.http.batches.create import ENDPOINTS
from llcuda_net.server.http.conversations.cache import NodeCache
from llcuda_net.server.http.conversations.recovery import settle
from llcuda_net.server.http.delivery.leaving import Orphans
from llcuda_net.server.http.delivery.runs import Runs
from llcuda_net.server.http.page.sessions import Sessions
from llcuda_net.server.http.responder import Respond
from llcuda_net.server.http.routes import ROUTES
from llcuda_net.server.memory_guard import MemoryGuard, limit_of
from llcuda_net.server.objects import KeptObjects
from llcuda_net.server.previous import following, previous_of
from llcuda_net.server.queries import QueryService
from llcuda_net.server.tcp.host import GreetedPeer
from llcuda_net.server.tcp.listener import Listener
from llcuda_net.server.waiting import Waiting
from llcuda_net.storage.objects import entries
from llcuda_net.storage.records import Level, Result
from llcuda_net.storage.replica.interface import Former
from llcuda_net.storage.starting import Recovered
from llcuda_net.telemetry.document import StatusDocuments
from llcuda_net.telemetry.history import History
from llcuda_net.telemetry.observers import ServerState, Watches
from llcuda_net.telemetry.readiness import Startup
from llcuda_net.telemetry.status import Reporter
from llcuda_net.upstream.constraints.checks import Checks
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease
from llcuda_net.util.logs import reason_of
from llcuda_net.util.version import package_version
from llcuda_protocol import Attach, Generate, Hello
from llcuda_protocol.kinds import MAX_LINGER

if TYPE_CHECKING:
    from llcuda_net.server.cluster.cluster import Cluster

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds for which the readers of a generation that goes on here may come back, also those who
#: read it at another server: their server asks each second where it is.
_COMING = 5.0


class Gateway:
    """Everything that lives as long as the process.

    Args:
        settings: see settings.py.
        pool: the upstreams; its health checks run only if the caller runs them.
        poller: reads the token streams of upstreams; the gateway runs it.
        users: who may come in; by default everybody.
        persistence: journal and store; without it nothing is stored.
        models: loads and unloads the models that this server runs; None: others run all of them.
        monitor: answers /healthz, /readyz and /metrics on the server's port.
        prepare_kernels: compiles the kernels of the analysis before they are first used.
        checks: of constraints; by default in a process of their own.
        startup: requests wait until it is over, which `run` brings about; None: they need not.
        cluster: the other servers on the same database, joined; None: there is none.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        poller: Poller,
        users: Users | None = None,
        persistence: Persistence | None = None,
        *,
        models: Manager | None = None,
        monitor: Respond | None = None,
        prepare_kernels: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        checks: Checks | None = None,
        startup: Startup | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._startup = startup or Startup()
        self.settings = settings
        self.users = users if users is not None else Users()
        self.monitor = monitor
        self.models = models
        self.cluster = cluster
        self.agent = f"llcuda-server/{package_version()}"
        self._pool = pool
        self._poller = poller
        self._persistence = (
            persistence if persistence is not None else Persistence(None, Level.MEMORY)
        )
        storage = self._persistence.storage
        #: Files, batches and conversations.
        self.objects = KeptObjects(None if storage is None else storage.objects)
        #: Who shows conversations follows them here.
        self.changes = Changes()
        #: Entries of conversations, as they were shown last.
        self.shown = NodeCache()
        #: Who shows what runs follows it here.
        self.runs = Runs()
        #: Browsers that are signed in, and who may come in over HTTP.
        self.sessions = Sessions(self.objects, self.users)
        self.access = Access(settings, self.users, self.sessions)
        self.sessions.on_ended = self.check_users
        self._lookout = Lookout(self.objects, self.changes, self.sessions.changed)
        handlers = {
            route.pattern: route.handler
            for route in ROUTES
            if route.method == "POST" and route.pattern in ENDPOINTS
        }
        #: The paths whose requests may be in a batch.
        self.batch_endpoints = tuple(handlers)
        self._batches = BatchRunner(self, handlers)
        self._publisher = Publisher(
            self._persistence, may_show=None if cluster is None else cluster.may_show
        )
        self.objects.on_life = self._batches.wake
        #: Connections with bytes that were added since the last flush.
        self.unflushed = self._publisher.unflushed
        self._scheduler = Scheduler(
            self._place,
            settings.max_queue,
            explain=lambda ticket: pool.why(need_of(ticket.slot_request)),
            delay=lambda ticket: pool.delay(need_of(ticket.slot_request)),
            ageing=settings.ageing_seconds,
            flush=self._publisher.publish,
        )
        bounds = Bounds.of(limit_of(settings.memory_limit))
        self._shelf = Shelf(bounds.finished, self._persistence.result_of)
        self._registry = Registry(self._shelf)
        self._budget = MemoryBudget(bounds, _Held(self._registry, cluster))
        #: The server's memory, and what takes it.
        self.memory = MemoryGuard(bounds, self._budget, self._shelf)
        self.unsent, self.incoming = self.memory.unsent, self.memory.incoming
        self._runner = Runner(
            pool, self._scheduler, self._persistence, self._publisher, self._registry, checks
        )
        #: Analyses results and searches them; None where none are kept, or that is not wanted.
        self.analyst: Analyst | None = None
        if settings.analysis and self._persistence.keeps:
            self.analyst = Analyst(
                self._persistence,
                EmbeddingBackend(pool),
                self._scheduler,
                prepare=prepare_kernels,
            )
        self._resumer = Resumer(
            self._runner,
            pool,
            self._scheduler,
            functools.partial(self._enter, always=True),
            functools.partial(self.left, at_least=0.0 if cluster is None else _COMING),
            lambda: self.elsewhere_models,
        )
        self._waiting = Waiting(
            pool, self._scheduler, settings.failover_seconds, self._resumer.look
        )
        self.finder = Finder(self._registry, self._persistence, self._shelf, cluster)
        self.listener = Listener(self, settings.max_connections)
        #: Answers over HTTP that their readers left.
        self.orphans = Orphans()
        self._reporter = Reporter(pool, self._scheduler, self._registry, self._persistence, models)
        #: Told of each request when it is over.
        self.watch = Watches()
        self._history = History(pool, self._scheduler, self._registry)
        self.watch.add(self._history)
        self._documents = StatusDocuments(self._history, storage)
        #: The state of the server, for observers.
        self.standing = ServerState(
            settings,
            pool,
            self._scheduler,
            self._registry,
            self.listener,
            self._persistence,
            self.memory.report,
            self._batches.counts,
            models,
            cluster,
        )
        #: Answers what is no generation.
        self.queries = QueryService(
            settings,
            pool,
            self._scheduler,
            self._registry,
            self._persistence,
            self._budget,
            self.analyst,
            startup=self._startup,
            watch=self.watch,
            check_open=self._check_not_draining,
            elsewhere=self.elsewhere,
            embed_elsewhere=None if cluster is None else cluster.embed,
        )
        self._nursery: trio.Nursery
        if cluster is not None:
            cluster.attach(self)
            cluster.hooks.stopped.append(functools.partial(self.objects.set_life, None))
            cluster.hooks.life.append(self.objects.set_life)

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return (
            f"<Gateway {state} {self.listener!r}"
            f" generations={len(self._registry)} queued={self._scheduler.queued}>"
        )

    def waiting_tickets(self) -> list[Ticket]:
        """Those that wait for a slot, in the order in which they are served."""
        return self._scheduler.waiting()

    @property
    def scheduler(self) -> Scheduler:
        """The queue for their slots."""
        return self._scheduler

    @property
    def registry(self) -> Registry:
        """The generations that run."""
        return self._registry

    @property
    def pool(self) -> Pool:
        """The upstreams."""
        return self._pool

    def _place(self, ticket: Ticket) -> Lease | None:
        return self._pool.place(need_of(ticket.slot_request), ticket.slot_request.user.name)

    # -- life ---------------------------------------------------------------------------------

    async def run(
        self,
        listeners: Sequence[trio.abc.Listener[Any]] = (),
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `drain` has ended, or until cancelled.

        Args:
            listeners: none where `listener` runs already, since the server's start takes long.
        """
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._poller.run, self._publisher.publish)
            self._nursery.start_soon(self._scheduler.run)
            self._nursery.start_soon(self._waiting.follow_pool)
            if self._pool.watched:
                self._nursery.start_soon(self._waiting.end_outages)
            self._nursery.start_soon(self._publisher.run)
            self._nursery.start_soon(self._persistence.until_closed)
            self._nursery.start_soon(self._runner.acceptance.run)
            self._nursery.start_soon(self._registry.run)
            self._nursery.start_soon(self._shelf.run, self._publisher.publish)
            self._nursery.start_soon(self.memory.run)
            self._nursery.start_soon(self._history.run)
            self._nursery.start_soon(self._follow_erased)
            await self._nursery.start(self.objects.run)
            self._nursery.start_soon(self.sessions.run)
            self._nursery.start_soon(self._lookout.run)
            if self.analyst is not None:
                self._nursery.start_soon(self.analyst.run)
            if self.cluster is not None:
                await self._nursery.start(self.cluster.run)
            await self.resume(self._persistence.recovered)
            if self.cluster is not None:
                self.cluster.resumed()
            if listeners:
                self._nursery.start_soon(self.listener.run, listeners, self._nursery)
            await self._startup.finish()
            self._nursery.start_soon(self._batches.run)
            task_status.started()

    @property
    def draining(self) -> bool:
        """Whether the server stops: it takes nothing new."""
        return self.standing.draining

    async def drain(self, grace: float) -> None:
        """Take nothing new, and stop when all has ended, after `grace` seconds; see drain.py."""
        if self.draining:
            return
        self.standing.draining = True
        await drain(self._registry, self.listener, grace)
        self._nursery.cancel_scope.cancel()

    # -- sessions -----------------------------------------------------------------------------

    def check_users(self) -> None:
        """The users have changed: sessions take their new limits, or end; idempotent."""
        self.sessions.check()
        self._scheduler.update_users(self.users.named)
        self.listener.check_users()

    # -- requests -----------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether it is one of a cluster."""
        return self.cluster is not None

    @property
    def elsewhere_models(self) -> Collection[str]:
        """The names of the models that other servers of the cluster have."""
        return () if self.cluster is None else self.cluster.models

    @property
    def starting(self) -> bool:
        """Whether requests must wait for `started`."""
        return self._startup.reason is not None

    @property
    def startup_reason(self) -> str | None:
        """What the server does before it serves; None: it has started."""
        return self._startup.reason

    async def started(self, user: User, size: int) -> None:
        """Return when the server has started, for a request that takes so much memory meanwhile.

        Raises:
            RequestError: too many wait.
        """
        with self._budget.holding(user.name, size):
            await self._startup.wait()

    def level(self, wanted: str | None) -> Level:
        """The level in force for a request that wants this one.

        Raises:
            RequestError: there is no such level, or this server does not have it.
        """
        return self._persistence.level(wanted)

    def asked_elsewhere(self, model: str | None) -> bool:
        """Whether another server of the cluster asks upstreams of a model, or will soon."""
        return self._pool.asked_elsewhere(model)

    def only_elsewhere(self, model: str | None) -> bool:
        """Whether other servers of the cluster alone ask the upstreams of a model."""
        return self._pool.only_elsewhere(model)

    def keeps_alone(self, id_: str) -> bool:
        """Whether a generation that is over is kept here, and not where other servers find it."""
        return self._persistence.keeps_alone(id_)

    async def find_previous(self, request: Generate, user: User) -> Result | Generation:
        """What a request names as the previous generation; see `previous_of`.

        Raises:
            RequestError: as there, or there is no memory for it.
        """
        await self._startup.wait()
        size = sizes.of(request.prompt) + sizes.of(request.messages)
        with self._budget.holding(user.name, size):
            return await previous_of(request, user, self.finder)

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        """Start a generation here, or join the one that has the same key.

        Args:
            api: see Generation.
            previous: what `find_previous` has found of a request that names one.
            id_: of a new one; None: any.

        Raises:
            RequestError: the request is wrong, the queue is full, or the server is stopping.
        """
        with self.watch.submitting():
            if previous is None:
                return self._submit(request, user, api, id_=id_)
            return self._submit(following(request, previous), user, api, request, id_)

    async def begin(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        *,
        id_: str | None = None,
        here: bool = False,
    ) -> Generation:
        """Start a generation, or join the one that has the same key; in a cluster on any server.

        Args:
            api, previous, id_: as of `submit`.
            here: only on this server, to which another one has sent the request.

        Raises:
            RequestError: as `submit`; or the cluster cannot say what the key means.
        """
        if self.cluster is None:
            return self.submit(request, user, api, previous, id_)
        size = sizes.of(request.prompt) + sizes.of(request.messages)
        with self._budget.holding(user.name, size):
            return await self.cluster.begin(request, user, api, previous, id_, here=here)

    def _submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None,
        asked: Generate | None = None,
        id_: str | None = None,
    ) -> Generation:
        self._check_not_draining()
        model_key = self._pool.key_of(request.model)
        self._pool.check(model_key)
        generation = requests.from_request(
            request,
            self.settings,
            self._persistence.level(request.level),
            self._pool.context(model_key),
            user,
            self._budget.bounds.generation,
            api,
            asked,
            id_,
        )
        if request.peer is not None:
            generation.id = self._id_of_peer(request.peer, generation.id)
        if request.key is not None:
            same = self._registry.find_by_key(
                request.key,
                generation.request_hash,
                generation.owner,
                generation.earlier_hash,
            )
            if same is not None:
                self._budget.check_streams(self.standing.streams)
                return same
            if request.fresh:
                self._registry.check_fresh(request.key, generation.owner)
        self._budget.admit(generation)
        generation.most_bytes = self._budget.bounds.most_of_log(generation.params)
        ticket = self._enter(
            generation, self._runner.dispatcher.slot_request(generation, model_key)
        )
        self._start(generation, functools.partial(self._runner.run, generation, ticket))
        text = request.prompt if request.messages is None else request.messages
        # With --log-prompts the text is logged at the default level.
        write = log.info if self.settings.log_prompts else log.debug
        write(
            "generation_started",
            generation=generation.id,
            position=ticket.position,
            params=sorted(generation.params),
            **({"prompt": text} if self.settings.log_prompts and not request.transient else {}),
        )
        return generation

    def _id_of_peer(self, peer: dict[str, Any], otherwise: str) -> str:
        """The id that another server has given a generation."""
        id_ = str(peer.get("id") or otherwise)
        if self._registry.find(id_, None) is not None:
            raise InvalidRequest("a generation has this id already")
        return id_

    def _enter(
        self, generation: Generation, slot_request: SlotRequest, *, always: bool = False
    ) -> Ticket:
        """A place in the queue for a generation; its readers see each move."""

        def moved(ticket: Ticket) -> None:
            generation.queued(ticket.position, ticket.wait, ticket.reason)

        ticket = self._scheduler.submit(
            slot_request, always=always, on_move=moved, tokens_made=lambda: generation.made
        )
        if ticket.position:
            generation.place = Place(ticket.position, ticket.wait, ticket.reason)
        self._waiting.add(ticket, generation)
        return ticket

    def _start(self, generation: Generation, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def to_its_end() -> None:
            await run()
            if not generation.suspended:
                self._count(generation)

        self._registry.add(generation)
        self._nursery.start_soon(to_its_end)
        self.runs.began(generation)

    async def adopt(self, former: Former) -> None:
        """Take over what a fenced life of a server had, and go on with it.

        Raises:
            StorageError: some of it is not taken over.
        """
        entries = await self._persistence.adopt(former.number, former.generations)
        await self.resume(entries, whole=former.whole)

    async def resume(self, entries: Sequence[Recovered], *, whole: bool = False) -> None:
        """Go on with generations that ran when the last server ended, or that are another's.

        Args:
            whole: their readers have nothing that is not in these entries.
        """
        found = []
        for entry in entries:
            try:
                found.append((self._recall(entry, whole=whole), entry))
            except Exception:  # it stays open in the journal; the others go on
                log.exception("generation_not_resumed", generation=entry.entry.opened.generation)
        # Clients that attach see the new run, so the next server must know it, too.
        with contextlib.suppress(RequestError):  # without it none of them continues
            await self._persistence.sync_all()
        found = [(one, entry) for one, entry in found if self._persistence.is_ours(one)]
        await settle(self.objects, [generation for generation, _ in found])
        for generation, entry in found:
            self._start(generation, functools.partial(self._resumer.run, generation, entry))

    def _recall(self, entry: Recovered, *, whole: bool) -> Generation:
        """A generation that ran when the last server ended, in a new run."""
        user = self.users.named(entry.entry.opened.owner)
        generation = requests.from_journal(entry, self.settings, user)
        generation.most_bytes = self._budget.bounds.most_of_log(generation.params)
        self._persistence.resume(generation, entry.entry)
        if entry.concluded is None and whole:
            generation.fails_over("another server goes on with it")
        elif entry.concluded is None:
            # At once: a client that has more than the journal holds sees it by the epoch. Also of
            # one that seems never to have run: a power cut may have taken all of its tokens.
            generation.splice()
            # Where it continues is known here only with a single upstream.
            urls = [backend.upstream.base_url for backend in self._pool.backends]
            with contextlib.suppress(RequestError):  # then its next piece is refused, too
                self._persistence.spliced(generation, urls[0] if len(urls) == 1 else "")
        if entry.cancelled:
            generation.cancel()
        log.info(
            "generation_resumed",
            generation=generation.id,
            pieces=generation.count,
            gap=entry.gap,
        )
        return generation

    def left_aside(self, only: Generation | None = None) -> list[Left]:
        """What was suspended since the last call, or of that just this one: nobody runs it."""
        return self._persistence.left(only)

    def without_upstream(self) -> list[tuple[Generation, str | None]]:
        """Generations that wait, and whose model no upstream has now, each with its model's name.

        None in place of the name: the default model.
        """
        stranded = [
            (one, one.model.get("name") or one.wanted) for one in self._registry if one.stranded
        ]
        return stranded + self._waiting.without_upstream()

    async def committed(self) -> None:
        """Return when other servers could know all that is here.

        Raises:
            RequestError: it cannot be written.
        """
        await self._persistence.sync_all()

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        """Have these, which nobody has, be this server's in its new life."""
        self._persistence.begin_again(entries)

    def forget(self, left: Left) -> None:
        """Another server has it: this one's journal need not keep it."""
        self._persistence.forget(left.entry)
        if left.generation.cancelled and self.cluster is not None:
            self.cluster.peers.cancel(left.generation.id)

    async def find(self, request: Attach, user: User, *, only_here: bool = False) -> Generation:
        """The generation to read: one of the user; for an admin, any.

        Args:
            only_here: not if it is in the memory of another server, which is the one that asks.

        Raises:
            RequestError: there is none, or the client has more of it than there is.
        """
        await self._startup.wait()
        if self.draining and not only_here:  # others read what runs here to its end
            raise shutting_down("the server is shutting down; attach again later")
        self._budget.check_streams(self.standing.streams)
        found = await self.finder.find(request.id, view_of(user), only_here=only_here)
        requests.check_position(found, request.first, request.epoch)
        if request.peer is not None and "on_disconnect" in request.peer:
            found.on_disconnect = request.peer["on_disconnect"]
        return found

    async def result(self, id_: str, user: User) -> Result:
        """What is kept of a generation that is over: one of the user; for an admin, any.

        Raises:
            RequestError: as `Finder.result`.
        """
        await self._startup.wait()
        return await self.finder.result(id_, view_of(user))

    async def results(
        self, ids: Collection[str], user: User, made: Callable[[Result], _T]
    ) -> dict[str, _T]:
        """What is made of those of the user's (of an admin: any) generations that are kept.

        Raises:
            RequestError: as `Finder.results`.
        """
        await self._startup.wait()
        return await self.finder.results(ids, view_of(user), made)

    async def states(self, ids: Collection[str], user: User) -> dict[str, State]:
        """The states of those of the user's (of an admin: any) generations that there are.

        Raises:
            RequestError: the store cannot be read.
        """
        await self._startup.wait()
        return await self.finder.states(ids, view_of(user))

    async def find_by_key(self, key: str, owner: str) -> Generation | None:
        """What an owner's idempotency key means, running or over.

        Raises:
            RequestError: the store cannot be read.
        """
        return await self.finder.find_by_key(key, owner)

    def same_request(self, request_hash: bytes, owner: str) -> list[Generation]:
        """An owner's generations in memory that were asked just this, oldest first."""
        return self._registry.of_request(request_hash, owner)

    def running(self, owner: str | None) -> list[Generation]:
        """An owner's generations (None: everybody's) that are not over."""
        return [one for one in self._registry if owner in (None, one.owner) and not one.ended]

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._scheduler.queued

    async def delete(self, id_: str, user: User, *, only_here: bool = False) -> None:
        """Delete a generation that is over: one of the user; for an admin, any.

        Args:
            only_here: not if another server alone has it, which is the one that asks.

        Raises:
            RequestError: as `Finder.delete`.
        """
        await self._startup.wait()
        owner = await self.finder.delete(id_, view_of(user), only_here=only_here)
        self.orphans.discard(id_)
        self.runs.deleted(id_, owner)
        if self.objects.keeps:
            await self.objects.write(lambda db: entries.forget_words(db, id_))
        self.shown.forget(id_)
        log.info("generation_deleted", generation=id_, user=user.name)

    async def _follow_erased(self) -> None:
        """Forget transient generations when they are erased. Who reads one may get the rest."""
        while True:
            for gone in await self.finder.erased():
                self.orphans.discard(gone.id)
                self.runs.deleted(gone.id, gone.owner)

    # -- other servers of the cluster -----------------------------------------------------------

    def greet_peer(self, hello: Hello, *, under_tls: bool) -> GreetedPeer | None:
        """Whom another server of the cluster asks for; None: it is none."""
        if self.cluster is None:
            return None
        return self.cluster.peers.greet(hello, under_tls=under_tls)

    def known_user(self, name: str) -> User | None:
        """The user of a name; None: there is none, or none any more."""
        return self.users.known(name)

    async def stored(self, id_: str) -> Result | None:
        """The result of anybody's generation; None: there is none. Raises RequestError."""
        return await self.finder.stored(id_)

    def flush(self) -> None:
        """Send what waits in write buffers."""
        while self.unflushed:
            self.unflushed.pop().flush()

    def outline(self, request: Generate, user: User, api: dict[str, Any] | None) -> Generation:
        """The generation that a request asks for, which does not run. Raises RequestError."""
        level = self._persistence.level(request.level)
        most = self._budget.bounds.generation
        return requests.from_request(request, self.settings, level, None, user, most, api)

    async def elsewhere(self, owner: str | None) -> list[dict[str, Any]]:
        """What of an owner (None: of all) is in the memory of other servers, as entries."""
        return [] if self.cluster is None else await self.cluster.peers.running(owner)

    def wake_batches(self) -> None:
        """A batch was made, or is to be cancelled."""
        self._batches.wake()

    def holding(
        self, user: User, size: int, *, refuse: bool = True
    ) -> contextlib.AbstractContextManager[None]:
        """Around the sending of a reply that takes so much memory; see MemoryBudget.holding."""
        return self._budget.holding(user.name, size, refuse=refuse)

    def recall(self, generation: Generation) -> None:
        """A stream needs a log that was dropped from memory."""
        self._shelf.recall(generation)

    def left(self, generation: Generation, at_least: float = 0.0) -> None:
        """A reader has left: if it was the last, start the timer of `on_disconnect`.

        Args:
            at_least: seconds for which it goes on whatever that says.
        """
        if isinstance(generation, Followed):
            generation.left()
            return
        seconds = max(generation.on_disconnect, at_least)
        if generation.readers or generation.ended or seconds >= MAX_LINGER:
            return
        if seconds <= 0:
            generation.cancel()
        elif generation.abandoned is None:
            generation.abandoned = trio.CancelScope()
            self._nursery.start_soon(self._abandon, generation, generation.abandoned, seconds)

    async def _abandon(
        self, generation: Generation, scope: trio.CancelScope, seconds: float
    ) -> None:
        with scope:
            await trio.sleep(seconds)
            if generation.readers:  # one has come in this very moment
                return
            log.info("generation_abandoned", generation=generation.id)
            generation.cancel()

    def _count(self, generation: Generation) -> None:
        if self.analyst is not None:
            self.analyst.wake()
        self.runs.ended(generation)
        self._reporter.ended(generation)
        self.watch.ended(generation)
        error = generation.error
        reason = None if error is None else reason_of(error.code, error.message)
        log.info(
            "generation_ended",
            generation=generation.id,
            state=generation.state,
            pieces=generation.count,
            seconds=round(trio.current_time() - generation.times.received, 3),
            **({} if error is None else {"code": error.code, "reason": reason}),
        )
        if error is not None:
            log.debug("generation_error", generation=generation.id, message=error.message)

    def _check_not_draining(self) -> None:
        if self.draining:
            raise shutting_down("the server is shutting down; try again later")
        if self.cluster is not None:
            self.cluster.check_open()

    async def report(self, user: User) -> dict[str, Any]:
        """What a status request is answered with; see reporting.py."""
        await self._startup.wait()
        report = self._reporter.report(
            user,
            draining=self.draining,
            connections=len(self.listener.sessions),
            http={"requests": len(self.listener.requests), "idle": self.listener.resting},
        )
        report["memory"] = self.memory.report()
        if self.cluster is not None:
            report["cluster"] = self.cluster.report()
        if self.analyst is not None:
            with contextlib.suppress(RequestError), trio.move_on_after(2):
                report["analysis"] = await self.analyst.report(view_of(user))
        return report

    async def status(self, user: User, *, history: bool = False) -> dict[str, Any]:
        """The report with what a chart needs beside it; see telemetry/document.py.

        Args:
            history: whether it has the samples of the last two minutes.
        """
        return await self._documents.make(await self.report(user), user, history=history)


class _Held:
    """What takes memory for a user and is not over: what runs here, and what is followed here."""

    def __init__(self, registry: Registry, cluster: Cluster | None) -> None:
        self._registry = registry
        self._cluster = cluster

    def __iter__(self) -> Iterator[Generation]:
        yield from self._registry
        if self._cluster is not None:
            yield from (one for one in self._cluster.peers.followed if not one.ended)
