"""From settings to a running server: files, sockets, engine, signals, and the order of their end.

The engine outlives the drain, and the drain outlives the listeners.
"""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from llcuda_net import logs
from llcuda_net.address import Address
from llcuda_net.compiling import compile_kernels
from llcuda_net.errors import ConfigError, EngineError, ListenError, StorageError
from llcuda_net.keeping import Keeper
from llcuda_net.server import Server, package_version
from llcuda_net.settings import Settings
from llcuda_net.storage.paths import default_directory
from llcuda_net.storage.pipeline import Storage
from llcuda_net.storage.records import Level
from llcuda_net.upstream.engine import Engine, EngineOptions
from llcuda_net.upstream.fingerprint import Fingerprint
from llcuda_net.upstream.hub import StreamHub
from llcuda_net.upstream.llama_server import LlamaServer

if TYPE_CHECKING:
    from llcuda_net.monitoring import Monitor
    from llcuda_net.tracing import Tracing

log = structlog.get_logger(__name__)

_DESCRIPTORS = 65_536
_Listeners = Sequence[trio.SocketListener] | Sequence[trio.SSLListener[trio.SocketStream]]


def run(settings: Settings) -> int:
    """Serve until told to stop; returns the exit code.

    Raises:
        ConfigError: a file or a combination of settings is wrong.
        EngineError: the engine could not load its model.
        ListenError: the port cannot be had.
        StorageError: the data folder cannot be used; another server may have it.
    """
    tokens = _tokens(settings)
    tls = _tls(settings)
    api_key = _api_key(settings)
    tracing = _tracing(settings)
    _raise_descriptor_limit()
    with _model(settings) as model:
        return trio.run(_Serving(settings, tokens, tls, api_key, model, tracing).run)


def _tokens(settings: Settings) -> list[str]:
    if settings.auth_token_file is None:
        if not settings.allow_no_auth and not _is_loopback(settings.host):
            raise ConfigError(
                f"listening on {settings.host} would let anybody in: give --auth-token-file FILE, "
                "or --allow-no-auth if that is meant"
            )
        return []
    lines = _read(settings.auth_token_file, "token file").splitlines()
    tokens = [s for line in lines if (s := line.strip()) and not s.startswith("#")]
    if not tokens:
        raise ConfigError(f"token file {settings.auth_token_file} holds no token; one a line")
    return tokens


def _api_key(settings: Settings) -> str | None:
    path = settings.upstream_api_key_file
    if path is None:
        return None
    key = _read(path, "API key file").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"API key file {path} must hold one line of printable ASCII, the key")
    return key


def _tracing(settings: Settings) -> Tracing | None:
    if settings.otlp_endpoint is None:
        return None
    from llcuda_net.tracing import open_tracing  # of an extra, which may not be installed

    return open_tracing(settings.otlp_endpoint, package_version())


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as we may: the soft limit is often fewer than our connections."""
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # No more than can be of use: a hard limit may be a thousand million.
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path} is not UTF-8 text") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    _read(settings.tls_cert, "certificate")
    _read(settings.tls_key, "private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # A password of nothing: without one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "not PEM"
        raise ConfigError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and key: {reason}"
        ) from None
    return context


@contextlib.contextmanager
def _model(settings: Settings) -> Iterator[Path | None]:
    """The file for the engine; None where there is an upstream."""
    if settings.upstream is not None:
        yield None
    elif settings.model is not None:
        yield Path(settings.model)
    else:
        with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as path:
            yield path


class _Serving:
    def __init__(
        self,
        settings: Settings,
        tokens: Sequence[str],
        tls: ssl.SSLContext | None,
        api_key: str | None,
        model: Path | None,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._tls = tls
        self._api_key = api_key
        self._model = model
        self._tracing = tracing
        self._server: Server | None = None
        self._signals: list[int] = []
        self._failure: ConfigError | EngineError | StorageError | None = None
        self._folder: Path | None = None
        self._restarts: Callable[[], int] = lambda: 0
        self._monitor: Monitor | None = None
        self._monitored: Sequence[trio.SocketListener] = ()

    async def run(self) -> int:
        listeners = await self._listen()
        self._monitored = await self._listen_monitor()
        async with trio.open_nursery() as outer:
            self._start_monitor(outer)
            keeper = await self._keeper(outer, _address(listeners[0]))
            if keeper is not None:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._watch_signals, nursery)
                    upstream = await self._upstream(nursery)
                    if upstream is not None:
                        await self._serve(listeners, keeper, *upstream)
                    nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return 128 + self._signals[-1] if len(self._signals) > 1 else 0

    async def _keeper(self, nursery: trio.Nursery, address: str) -> Keeper | None:
        """What keeps the generations; None if the data folder cannot be used."""
        level = Level(self._settings.durability)
        if self._settings.store == "none":
            return Keeper(None, level)
        self._folder = Path(self._settings.data_dir or default_directory())
        storage = Storage(self._folder, address=address)
        try:
            await nursery.start(storage.run)
        except StorageError as error:
            self._failure = error
            return None
        return Keeper(storage, level)

    async def _listen(self) -> _Listeners:
        listeners = await _open(self._settings.host, self._settings.port)
        if self._tls is None:
            return listeners
        return [trio.SSLListener(x, self._tls, https_compatible=True) for x in listeners]

    async def _listen_monitor(self) -> Sequence[trio.SocketListener]:
        settings = self._settings
        if settings.metrics_port is None:
            return ()
        return await _open(settings.metrics_host, settings.metrics_port, "metrics-")

    def _start_monitor(self, nursery: trio.Nursery) -> None:
        """Before the server, so that it can be asked while a model loads; ends after it."""
        if not self._monitored:
            return
        from llcuda_net.monitoring import Monitor  # costs time, and few ask for it

        self._monitor = Monitor()
        for listener in self._monitored:
            log.info("metrics_listening", address=_address(listener))
        if not _is_loopback(self._settings.metrics_host):
            log.warning("metrics_without_token", host=self._settings.metrics_host)
        nursery.start_soon(self._monitor.serve, self._monitored)

    async def _upstream(self, nursery: trio.Nursery) -> tuple[LlamaServer, StreamHub] | None:
        """The upstream and its hub; None if there is none to be had, with the reason kept."""
        hub = StreamHub()
        stall = self._settings.stall_timeout
        if self._settings.upstream is not None:
            try:
                upstream = LlamaServer(
                    self._settings.upstream, hub, api_key=self._api_key, stall_timeout=stall
                )
            except ConfigError as error:
                self._failure = error
                return None
            return upstream, hub
        engine = self._engine()
        try:
            await nursery.start(engine.run)
        except EngineError as error:
            self._failure = error
            return None
        finally:
            logs.progress("")
        assert engine.base_url is not None
        self._restarts = lambda: engine.restarts
        upstream = LlamaServer(engine.base_url, hub, api_key=engine.api_key, stall_timeout=stall)

        def follow() -> None:
            upstream.forget()
            upstream.starting = engine.base_url is None
            if engine.base_url is not None:
                upstream.base_url = engine.base_url

        self._follow = follow
        return upstream, hub

    def _engine(self) -> Engine:
        settings = self._settings
        assert self._model is not None
        options = EngineOptions(
            model=self._model,
            ctx=settings.ctx,
            slots=settings.slots,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        )
        self._follow = lambda: None
        return Engine(options, on_progress=logs.progress, on_change=lambda: self._follow())

    async def _serve(
        self, listeners: _Listeners, keeper: Keeper, upstream: LlamaServer, hub: StreamHub
    ) -> None:
        fingerprint = Fingerprint(upstream, self._folder, self._model)
        server = Server(self._settings, upstream, hub, self._tokens, keeper, fingerprint)
        server.upstream_restarts = self._restarts
        if server.analyst is not None:
            server.analyst.prepare = compile_kernels
        if self._monitor is not None:
            self._monitor.watch(server)
        if self._tracing is not None:
            self._tracing.name_of = server.standing.name_of
            server.watch.add(self._tracing)
        async with trio.open_nursery() as around:
            if self._folder is not None:  # nobody asks for it where nothing is kept
                around.start_soon(fingerprint.run)
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run, listeners)
                await self._announce(server, listeners)
                self._server = server
                if self._signals:
                    nursery.start_soon(server.drain, self._settings.drain_seconds)
            around.cancel_scope.cancel()
        if self._monitor is not None:
            self._monitor.forget()
        if self._tracing is not None:
            await self._tracing.aclose()
        await upstream.aclose()

    async def _announce(self, server: Server, listeners: _Listeners) -> None:
        properties = await server.prepare()
        if properties is not None:
            log.info(
                "upstream_ready",
                model=properties.model,
                slots=properties.slots,
                context=properties.context,
            )
        with contextlib.suppress(OSError):  # whoever started us may not read it
            for listener in listeners:
                print(f"listening on {_address(listener)}", flush=True)
            for monitored in self._monitored:
                print(f"metrics on http://{_address(monitored)}/metrics", flush=True)

    async def _watch_signals(
        self,
        nursery: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self._signals.append(number)
                log.info("signal", name=signal.Signals(number).name)
                if self._server is None or len(self._signals) > 1:
                    nursery.cancel_scope.cancel()
                else:
                    nursery.start_soon(self._server.drain, self._settings.drain_seconds)


async def _open(host: str, port: int, kind: str = "") -> Sequence[trio.SocketListener]:
    """Listeners on an address that --{kind}host and --{kind}port gave."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except (OSError, UnicodeError) as error:  # the latter for a name that no DNS could hold
        reason = getattr(error, "strerror", None) or str(error)
        raise ListenError(
            f"cannot listen on {Address(host, port)}: {reason}; "
            f"choose another --{kind}port or --{kind}host"
        ) from None


def _address(listener: trio.SocketListener | trio.SSLListener[trio.SocketStream]) -> str:
    inner = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    assert isinstance(inner, trio.SocketListener)
    name = inner.socket.getsockname()
    return str(Address(name[0], name[1]))
