"""From settings to a running server: files, sockets, engine, signals, and the order of their end.

The engine outlives the drain, and the drain outlives the listeners.
"""

from __future__ import annotations

import contextlib
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.warmup import compile_kernels
from llcuda_net.config.files import open_to_others
from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import LEAST, Users
from llcuda_net.config.values import is_database
from llcuda_net.errors import ConfigError, EngineError, MissingExtra, StorageError
from llcuda_net.generation.persistence import Persistence
from llcuda_net.models.serving.local import LocalModels
from llcuda_net.server.cluster.opening import open_cluster, open_mirror
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.page import assets
from llcuda_net.server.processes.folders import left_by_processes
from llcuda_net.server.processes.part import Part
from llcuda_net.server.service_manager import ServiceManager
from llcuda_net.server.sockets import (
    PassedSockets,
    address_of,
    listeners_of,
    open_listeners,
    raise_descriptor_limit,
    tls_context,
)
from llcuda_net.storage.data_dir import default_directory
from llcuda_net.storage.objects.opening import open_objects
from llcuda_net.storage.postgres.opening import open_postgres
from llcuda_net.storage.records import Level
from llcuda_net.storage.results.writer import OpenStore
from llcuda_net.storage.storage import Storage
from llcuda_net.telemetry.readiness import Readiness, Startup
from llcuda_net.upstream.factory import Upstreams
from llcuda_net.upstream.pool import Pool
from llcuda_net.util.address import is_loopback
from llcuda_net.util.process_memory import Allocator
from llcuda_net.util.terminal import echo
from llcuda_net.util.text_files import read_text
from llcuda_net.util.version import package_version

if TYPE_CHECKING:
    from llcuda_net.cluster.mirror import Mirror
    from llcuda_net.server.cluster.cluster import Cluster
    from llcuda_net.server.http.monitor import Monitor
    from llcuda_net.telemetry.tracing import Tracing

    _OpenTracing = Callable[[Callable[[str], str]], Tracing]

log = structlog.get_logger(__name__)

#: Seconds that the end may take beyond the drain: the engine stops, the store is closed.
AFTER_DRAIN = 15.0

_Listeners = Sequence[trio.SocketListener] | Sequence[trio.SSLListener[trio.SocketStream]]


def run(settings: Settings, reload: Callable[[], Settings], part: Part | None = None) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        reload: reads the settings anew, on SIGHUP.
        part: which of several processes this is; None: the only one.

    Raises:
        ConfigError: a file, a combination of settings or a socket that was passed is wrong.
        EngineError: the only model could not be loaded.
        ListenError: the port cannot be had.
        StorageError: the data folder cannot be used; another server may have it.
    """
    with ServiceManager.take() as manager:
        passed = PassedSockets.take()
        settings = passed.settings(settings)  # where it really listens says who may come in
        users = _users(settings)
        tls = tls_context(settings)
        tracing = _tracing(settings)
        if settings.analysis:
            Devices(settings.analysis_gpus).check()
        if settings.http and settings.page:
            assets.load()  # before the event loop runs
        raise_descriptor_limit()
        Allocator().configure()
        with _demo() as demo:
            upstreams = Upstreams(settings) if settings.upstream else LocalModels(settings, demo)
            serving = _Serving(
                settings, users, tls, upstreams, reload, tracing, part, manager, passed
            )
            return trio.run(serving.run)


def _users(settings: Settings) -> Users:
    path = settings.auth_token_file
    if path is None:
        if not settings.allow_no_auth and not is_loopback(settings.host):
            raise ConfigError(
                f"listening on {settings.host} would let anybody in: give --auth-token-file FILE, "
                "or --allow-no-auth if that is meant"
            )
        return Users()
    return Users.parse(read_text(path, "token file"), f"token file {path}")


def _warn_of_secrets(settings: Settings, users: Users) -> None:
    """Say in the log which secrets others can read or guess."""
    files = {"token file": settings.auth_token_file, "private key": settings.tls_key}
    found = [(what, path) for what, path in files.items() if path is not None]
    keys = [spec.api_key_file or settings.upstream_api_key_file for spec in settings.upstream]
    found += [("API key file", path) for path in dict.fromkeys(keys) if path is not None]
    for what, path in found:
        mode = open_to_others(path)
        if mode is not None:
            log.warning("secret_open_to_others", what=what, path=path, mode=mode, do="chmod 600")
    if users.short:
        where = settings.auth_token_file
        log.warning("tokens_short", path=where, lines=list(users.short), least_characters=LEAST)


def _tracing(settings: Settings) -> _OpenTracing | None:
    if settings.otlp_endpoint is None:
        return None
    from llcuda_net.telemetry.tracing import (
        open_tracing,
    )  # of an extra, which may not be installed

    return open_tracing(settings.otlp_endpoint, package_version())


@contextlib.contextmanager
def _demo() -> Iterator[Path]:
    """The demonstration model."""
    with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as path:
        yield path


class _Serving:
    def __init__(
        self,
        settings: Settings,
        users: Users,
        tls: ssl.SSLContext | None,
        upstreams: Upstreams | LocalModels,
        reload: Callable[[], Settings],
        tracing: _OpenTracing | None,
        part: Part | None,
        manager: ServiceManager,
        passed: PassedSockets,
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._passed = passed
        self._part = part
        self._shared: int | None = None  # so many listeners are of all processes; None: all
        self._users = users
        self._tls = tls
        self._upstreams = upstreams
        self._reload = reload
        self._tracing = tracing
        self._server: Gateway | None = None
        self._startup = Startup(self._describe)
        self._health = Readiness(self._startup)
        self._storage: Storage | None = None
        self._clients = trio.CancelScope()
        self._signals: list[int] = []
        self._reading = trio.Lock()
        self._failure: ConfigError | EngineError | StorageError | None = None
        self._folder: Path | None = None
        self._monitor: Monitor | None = None
        self._monitored: Sequence[trio.SocketListener] = ()
        self._cluster: Cluster | None = None
        self._mirror: Mirror | None = None

    async def run(self) -> int:
        listeners = await self._listen()
        self._monitored = await self._listen_monitor()
        async with trio.open_nursery() as outermost:
            outermost.start_soon(self._manager.keep_informed, self._doing)
            async with trio.open_nursery() as outer:
                self._start_monitor(outer)
                persistence = await self._persistence(address_of(listeners[0]))
                if persistence is not None and await self._join(outermost, listeners):
                    server = self._gateway(persistence)
                    outer.start_soon(self._accept, server, listeners)
                    if await self._open_storage(outer):
                        await server.sessions.load()  # so that browsers are known while models load
                        await self._open_upstreams(server, listeners)
                outer.cancel_scope.cancel()
            if self._cluster is not None:  # nothing writes any more
                await self._cluster.leave()
            outermost.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return 128 + self._signals[-1] if len(self._signals) > 1 else 0

    def _doing(self) -> str:
        """What it does, for `systemctl status`."""
        reason, server = self._health.reason(), self._health.server
        if reason is not None or server is None:
            return reason or "the server is starting"
        return f"serving: {server.running} running, {server.queued} waiting"

    def _describe(self) -> str:
        if self._storage is not None and self._storage.progress < 1:
            return f"recovering the journal, {100 * self._storage.progress:.0f} %"
        return "waiting for the model"

    async def _accept(self, server: Gateway, listeners: _Listeners) -> None:
        """Let clients in, from before all is there that their requests need; until the end."""
        with self._clients:
            async with trio.open_nursery() as nursery:
                # The ones that this process shares with others close first: clients come to those.
                alone = [] if self._cluster is None else listeners[self._shared or 0 :]
                closing = listeners[: len(listeners) - len(alone)]
                await server.listener.run(closing, nursery, stays=alone)

    async def _persistence(self, address: str) -> Persistence | None:
        """What keeps the generations; None if the data folder cannot be used."""
        level = Level(self._settings.durability)
        if self._settings.store == "none":
            return Persistence(None, level)
        objects = None
        if is_database(self._settings.store):
            try:
                self._mirror = open_mirror(self._settings.store)
                objects = open_objects(self._settings.store)
            except (MissingExtra, StorageError) as error:
                self._failure = error
                return None
        self._folder = Path(self._settings.data_dir or default_directory())
        on_sync = None if self._monitor is None else self._monitor.metrics.sync_seconds.observe
        shared = self._settings.data_dir_shared
        self._storage = Storage(
            self._folder,
            shared=shared,
            address=address,
            on_sync=on_sync,
            transient_seconds=self._settings.transient_seconds,
            open_store=self._open_store(),
            replica=self._mirror,
            objects=objects,
        )
        try:
            await self._storage.claim()
            if self._part is None:
                await trio.to_thread.run_sync(left_by_processes, self._folder)
        except StorageError as error:
            self._failure = error
            return None
        return Persistence(self._storage, level)

    def _open_store(self) -> OpenStore | None:
        """What opens the store of results; None: SQLite, in the data folder."""
        store = self._settings.store
        return None if store == "sqlite" else partial(open_postgres, store)

    async def _join(self, nursery: trio.Nursery, listeners: _Listeners) -> bool:
        """Join the other servers of the database, if it is one; whether that could be done."""
        if self._mirror is None:
            return True
        assert self._folder is not None
        bound = address_of(listeners[0])
        try:
            cluster = await open_cluster(self._settings, bound, self._folder, self._mirror)
            await cluster.join()
        except StorageError as error:
            self._failure = error
            return False
        self._cluster = cluster
        await nursery.start(cluster.hold)
        return True

    async def _open_storage(self, nursery: trio.Nursery) -> bool:
        """Recover what the last server left; whether that could be done."""
        if self._storage is not None:
            try:
                await nursery.start(self._storage.run)
            except StorageError as error:
                self._failure = error
                return False
        return True

    async def _open_upstreams(self, server: Gateway, listeners: _Listeners) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_signals, nursery)
            try:
                pool = await self._open_pool(nursery, server)
            except (ConfigError, EngineError) as error:
                self._failure = error
            else:
                await self._serve(server, listeners, pool)
            nursery.cancel_scope.cancel()

    async def _open_pool(self, nursery: trio.Nursery, server: Gateway) -> Pool:
        if isinstance(self._upstreams, Upstreams):
            return await self._upstreams.open(nursery, self._folder)
        return await self._upstreams.open(nursery, self._folder, server.waiting_tickets)

    async def _listen(self) -> _Listeners:
        settings, part = self._settings, self._part
        listeners = listeners_of(self._passed.serving)
        if listeners:
            log.info("listening_on_passed_sockets", addresses=[address_of(x) for x in listeners])
        else:
            listeners = await open_listeners(settings.host, settings.port, shared=part is not None)
        if part is not None:
            alone = await open_listeners(part.host, part.port, shared=True)  # the parent holds it
            self._shared = len(listeners)
            listeners = [*listeners, *alone]
        if self._tls is None:
            return listeners
        return [trio.SSLListener(x, self._tls, https_compatible=True) for x in listeners]

    async def _listen_monitor(self) -> Sequence[trio.SocketListener]:
        settings = self._settings
        if settings.metrics_port is None:
            return ()
        if self._passed.monitoring:
            return listeners_of(self._passed.monitoring)
        return await open_listeners(settings.metrics_host, settings.metrics_port, "metrics-")

    def _start_monitor(self, nursery: trio.Nursery) -> None:
        """Start before the server, so that it answers while a model loads; it ends after it."""
        if not self._monitored and not self._settings.http:
            return
        from llcuda_net.server.http.monitor import Monitor  # costs time

        self._monitor = Monitor(users=self._settings.metrics_users, startup=self._startup)
        if not self._monitored:
            return
        for listener in self._monitored:
            log.info("metrics_listening", address=address_of(listener))
        if not is_loopback(self._settings.metrics_host):
            log.warning("metrics_without_token", host=self._settings.metrics_host)
        nursery.start_soon(self._monitor.serve, self._monitored)

    def _gateway(self, persistence: Persistence) -> Gateway:
        return Gateway(
            self._settings,
            self._upstreams.pool,
            self._upstreams.poller,
            self._users,
            persistence,
            models=self._upstreams.manager if isinstance(self._upstreams, LocalModels) else None,
            monitor=None if self._monitor is None else self._monitor.respond,
            prepare_kernels=compile_kernels,
            startup=self._startup,
            cluster=self._cluster,
        )

    async def _serve(self, server: Gateway, listeners: _Listeners, pool: Pool) -> None:
        if self._monitor is not None:
            self._monitor.watch(server)
        tracing = None if self._tracing is None else self._tracing(server.standing.name_of)
        if tracing is not None:
            server.watch.add(tracing)
        async with trio.open_nursery() as around, contextlib.AsyncExitStack() as running:
            await around.start(pool.run)
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                await self._announce(pool, listeners)
                self._health.server = server.standing
                self._manager.ready()
                self._manager.look(self._doing())
                running.enter_context(server.memory.garbage.sparing())
                self._server = server
                if self._signals:
                    nursery.start_soon(server.drain, self._settings.drain_seconds)
            self._clients.cancel()
            around.cancel_scope.cancel()
        self._health.server = None
        if self._monitor is not None:
            self._monitor.forget()
        if tracing is not None:
            await tracing.aclose()
        await self._upstreams.aclose()

    async def _announce(self, pool: Pool, listeners: _Listeners) -> None:
        await pool.prepare()
        _warn_of_secrets(self._settings, self._users)
        if self._settings.http and self._settings.page:
            scheme = "http" if self._settings.tls_cert is None else "https"
            log.info("page", url=f"{scheme}://{address_of(listeners[0])}/")
        with contextlib.suppress(OSError):  # the parent process may not read it
            for listener in listeners[: self._shared]:
                echo(f"listening on {address_of(listener)}", flush=True)
            for monitored in self._monitored:
                echo(f"metrics on http://{address_of(monitored)}/metrics", flush=True)

    async def _watch_signals(
        self,
        nursery: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    nursery.start_soon(self._read_again)  # it may take long: it may pull a model
                    continue
                self._signals.append(number)
                log.info("signal", name=signal.Signals(number).name)
                self._manager.stopping(self._settings.drain_seconds + AFTER_DRAIN)
                if self._server is None or len(self._signals) > 1:
                    nursery.cancel_scope.cancel()
                else:
                    nursery.start_soon(self._server.drain, self._settings.drain_seconds)

    async def _read_again(self) -> None:
        """SIGHUP: take users, upstreams and models as files have them now, or change nothing."""
        async with self._reading:
            self._manager.reloading()
            try:
                settings = await trio.to_thread.run_sync(self._reload, abandon_on_cancel=True)
                path = settings.auth_token_file
                text = None if path is None else read_text(path, "token file")
                if text is not None:
                    Users.parse(text, f"token file {path}")
                await self._upstreams.reload(settings)
                if text is not None:
                    self._users.reload(text, f"token file {path}")
                    if self._server is not None:
                        self._server.check_users()
            except ConfigError as error:
                log.error("not_reloaded", reason=str(error))
            else:
                log.info("reloaded")
                _warn_of_secrets(settings, self._users)
            finally:
                self._manager.reloaded()
