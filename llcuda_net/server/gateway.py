"""The gateway: sessions on one side, upstreams on the other, generations between.

It makes all parts of a server, and runs them. The way of a request: session -> Intake -> Runner ->
Dispatcher -> upstream -> Generation.extend -> Publisher -> streams -> write buffer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from llcuda_net.analysis.analyzer import Analyst
from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.embedding_backend import EmbeddingBackend
from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.errors import ShuttingDown
from llcuda_net.generation.dispatcher import need_of
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory.budget import Bounds, MemoryBudget
from llcuda_net.generation.memory.shelf import Shelf
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.publisher import Publisher
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.runner import Resumer, Runner
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.scheduler import Scheduler
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.server.batches.runner import BatchRunner
from llcuda_net.server.changes import Changes, Lookout
from llcuda_net.server.drain import drain
from llcuda_net.server.generations.finder import Finder
from llcuda_net.server.generations.generations import Generations
from llcuda_net.server.generations.intake import Intake
from llcuda_net.server.generations.launcher import Launcher
from llcuda_net.server.generations.resumption import Resumption
from llcuda_net.server.generations.waiting import Waiting
from llcuda_net.server.hosting import Hosting
from llcuda_net.server.http.access import Access
from llcuda_net.server.http.batches.create import ENDPOINTS
from llcuda_net.server.http.conversations.cache import NodeCache
from llcuda_net.server.http.delivery.leaving import Orphans
from llcuda_net.server.http.delivery.runs import Runs
from llcuda_net.server.http.page.sessions import Sessions
from llcuda_net.server.http.responder import Respond
from llcuda_net.server.http.routes import ROUTES
from llcuda_net.server.memory_guard import Held, MemoryGuard, limit_of
from llcuda_net.server.objects import KeptObjects
from llcuda_net.server.queries import QueryService
from llcuda_net.server.reports import Reports
from llcuda_net.server.tcp.host import GreetedPeer
from llcuda_net.server.tcp.listener import Listener
from llcuda_net.storage.records import Level
from llcuda_net.telemetry.document import StatusDocuments
from llcuda_net.telemetry.history import History
from llcuda_net.telemetry.observers import ServerState, Watches
from llcuda_net.telemetry.readiness import Startup
from llcuda_net.telemetry.status import Reporter
from llcuda_net.upstream.constraints.checks import Checks
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.lease import Lease
from llcuda_net.util.version import package_version
from llcuda_protocol import Hello

if TYPE_CHECKING:
    from llcuda_net.cluster.owners.loads import ModelLoad
    from llcuda_net.server.cluster.cluster import Cluster

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

    #: Told of each request when it is over.
    watch: Watches
    #: The state of the server, for observers.
    standing: ServerState
    #: Begins generations.
    intake: Intake
    #: Looks for generations, for whoever asks.
    finder: Finder
    #: Finds, reads and deletes generations.
    generations: Generations
    #: Analyses results and searches them; None where none are kept, or that is not wanted.
    analyst: Analyst | None
    _waiting: Waiting
    _resumption: Resumption

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
        #: The upstreams.
        self.pool = pool
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
        #: Answers over HTTP that their readers left.
        self.orphans = Orphans()
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
        self.objects.on_life = self._batches.wake
        self.listener = Listener(self, settings.max_connections)
        self._publisher = Publisher(
            self._persistence, may_show=None if cluster is None else cluster.may_show
        )
        #: Connections with bytes that were added since the last flush.
        self.unflushed = self._publisher.unflushed
        self.scheduler = Scheduler(
            self._place,
            settings.max_queue,
            explain=lambda ticket: pool.why(need_of(ticket.slot_request)),
            delay=lambda ticket: pool.delay(need_of(ticket.slot_request)),
            ageing=settings.ageing_seconds,
            flush=self._publisher.publish,
        )
        bounds = Bounds.of(limit_of(settings.memory_limit))
        self._shelf = Shelf(bounds.finished, self._persistence.result_of)
        self.registry = Registry(self._shelf)
        self._budget = MemoryBudget(
            bounds, Held(self.registry, lambda: () if cluster is None else cluster.peers.followed)
        )
        #: The server's memory, and what takes it.
        self.memory = MemoryGuard(bounds, self._budget, self._shelf)
        self.unsent, self.incoming = self.memory.unsent, self.memory.incoming
        self._observe(prepare_kernels)
        self._generate(checks)
        #: Answers what is no generation.
        self.queries = QueryService(
            settings,
            pool,
            self.scheduler,
            self.registry,
            self._persistence,
            self._budget,
            self.analyst,
            startup=self._startup,
            watch=self.watch,
            check_open=self._check_open,
            elsewhere=self.elsewhere,
            embed_elsewhere=None if cluster is None else cluster.embed,
            search_elsewhere=None if cluster is None else cluster.vectors.search,
        )
        #: This server, as the others of its cluster see it.
        self.hosting = Hosting(
            settings,
            self.users,
            pool,
            self.scheduler,
            self.registry,
            self.listener,
            self.standing,
            self._persistence,
            self._publisher,
            self.intake,
            self.finder,
            self._waiting,
            self._resumption,
            cluster,
        )
        self._nursery: trio.Nursery
        if cluster is not None:
            cluster.attach(self.hosting)
            cluster.hooks.stopped.append(functools.partial(self.objects.set_life, None))
            cluster.hooks.life.append(self.objects.set_life)

    def _observe(self, prepare_kernels: Callable[[], Awaitable[None]]) -> None:
        """Make what looks at what runs, and at results."""
        pool, scheduler, persistence = self.pool, self.scheduler, self._persistence
        self.analyst = None
        if self.settings.analysis and persistence.keeps:
            vectors = None if self.cluster is None else self.cluster.vectors
            self.analyst = Analyst(
                persistence,
                EmbeddingBackend(pool),
                scheduler,
                prepare=prepare_kernels,
                others=vectors,
                devices=Devices(self.settings.analysis_gpus),
            )
            if vectors is not None:
                vectors.shards = self.analyst.shards
        self._reporter = Reporter(pool, scheduler, self.registry, persistence, self.models)
        self.watch = Watches()
        self._history = History(pool, scheduler, self.registry)
        self.watch.add(self._history)
        self.standing = ServerState(
            self.settings,
            pool,
            scheduler,
            self.registry,
            self.listener,
            persistence,
            self.memory.report,
            self._batches.counts,
            self.models,
            self.cluster,
        )
        self._reports = Reports(
            self._reporter,
            StatusDocuments(self._history, persistence.storage),
            self.listener,
            self.standing,
            self.memory,
            self._startup,
            self.analyst,
            self.cluster,
        )

    def _generate(self, checks: Checks | None) -> None:
        """Make what begins generations, runs them, and finds them."""
        settings, pool, registry = self.settings, self.pool, self.registry
        persistence, budget = self._persistence, self._budget
        self._runner = Runner(pool, self.scheduler, persistence, self._publisher, registry, checks)
        self._waiting = Waiting(pool, self.scheduler, settings.failover_seconds)
        self._launcher = Launcher(
            self.scheduler,
            registry,
            self._waiting,
            self.runs,
            self._reporter,
            self.watch,
            self.analyst,
        )
        resumer = Resumer(
            self._runner,
            pool,
            self.scheduler,
            functools.partial(self._launcher.enter, always=True),
            functools.partial(
                self._launcher.left, at_least=0.0 if self.cluster is None else _COMING
            ),
            lambda: self.elsewhere_models,
        )
        self._resumption = Resumption(
            settings,
            self.users,
            pool,
            persistence,
            budget,
            resumer,
            self._launcher,
            self.objects,
        )
        self.intake = Intake(
            settings,
            pool,
            persistence,
            registry,
            budget,
            self._runner,
            self._launcher,
            standing=self.standing,
            watch=self.watch,
            check_open=self._check_open,
            cluster=self.cluster,
        )
        self.finder = Finder(registry, persistence, self._shelf, self.cluster)
        self.generations = Generations(
            self.finder,
            registry,
            startup=self._startup,
            standing=self.standing,
            budget=budget,
            orphans=self.orphans,
            runs=self.runs,
            shown=self.shown,
            objects=self.objects,
        )

    def __repr__(self) -> str:
        state = "draining" if self.draining else "serving"
        return (
            f"<Gateway {state} {self.listener!r}"
            f" generations={len(self.registry)} queued={self.scheduler.queued}>"
        )

    def waiting_tickets(self) -> list[Ticket]:
        """Those that wait for a slot, in the order in which they are served."""
        return self.scheduler.waiting()

    def _place(self, ticket: Ticket) -> Lease | None:
        return self.pool.place(need_of(ticket.slot_request), ticket.slot_request.user.name)

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
            self._nursery.start_soon(self.scheduler.run)
            self._nursery.start_soon(self._waiting.follow_pool, self._resumption.look)
            if self.pool.watched:
                self._nursery.start_soon(self._waiting.end_outages)
            self._nursery.start_soon(self._publisher.run)
            self._nursery.start_soon(self._persistence.until_closed)
            self._nursery.start_soon(self._runner.acceptance.run)
            self._nursery.start_soon(self.registry.run)
            self._nursery.start_soon(self._shelf.run, self._publisher.publish)
            self._nursery.start_soon(self.memory.run)
            self._nursery.start_soon(self._history.run)
            self._nursery.start_soon(self.generations.follow_erased)
            await self._nursery.start(self._launcher.run)
            await self._nursery.start(self.objects.run)
            self._nursery.start_soon(self.sessions.run)
            self._nursery.start_soon(self._lookout.run)
            if self.analyst is not None:
                self._nursery.start_soon(self.analyst.run)
            if self.cluster is not None:
                await self._nursery.start(self.cluster.run)
            await self._resumption.resume(self._persistence.recovered)
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
        await drain(self.registry, self.listener, grace)
        self._nursery.cancel_scope.cancel()

    # -- sessions -----------------------------------------------------------------------------

    def check_users(self) -> None:
        """The users have changed: sessions take their new limits, or end; idempotent."""
        self.sessions.check()
        self.scheduler.update_users(self.users.named)
        self.listener.check_users()

    # -- requests -----------------------------------------------------------------------------

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

    def _check_open(self) -> None:
        """Raise RequestError if no request may begin here."""
        if self.draining:
            raise ShuttingDown("the server is shutting down; try again later", retry=True)
        if self.cluster is not None:
            self.cluster.check_open()

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self.scheduler.queued

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

    def left(self, generation: Generation) -> None:
        """A reader has left; see Launcher.left."""
        self._launcher.left(generation)

    # -- other servers of the cluster ---------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether it is one of a cluster."""
        return self.cluster is not None

    @property
    def elsewhere_models(self) -> Mapping[str, ModelLoad]:
        """The models that other servers of the cluster have, by each of their names."""
        return {} if self.cluster is None else self.cluster.models

    def greet_peer(self, hello: Hello, *, under_tls: bool) -> GreetedPeer | None:
        """Whom another server of the cluster asks for; None: it is none."""
        if self.cluster is None:
            return None
        return self.cluster.peers.greet(hello, under_tls=under_tls)

    async def elsewhere(self, owner: str | None) -> list[dict[str, Any]]:
        """What of an owner (None: of all) is in the memory of other servers, as entries."""
        return [] if self.cluster is None else await self.cluster.peers.running(owner)

    # -- how it stands ------------------------------------------------------------------------

    async def report(self, user: User) -> dict[str, Any]:
        """What a status request is answered with; see Reports."""
        return await self._reports.report(user)

    async def status(self, user: User, *, history: bool = False) -> dict[str, Any]:
        """The report with what a chart needs beside it; see Reports."""
        return await self._reports.document(user, history=history)
