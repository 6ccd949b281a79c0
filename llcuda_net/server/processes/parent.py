"""Starts the processes of `--processes N`, starts them again when they end, and ends them.

What ends this process, ends all: the system kills them (PR_SET_PDEATHSIG), which loses nothing, and
PostgreSQL shuts down. Signals come to this process alone, since the others are in groups of their
own, and are passed on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from llcuda_net.config.settings import LEAST_MEMORY, Settings
from llcuda_net.config.token_file import Users
from llcuda_net.errors import ConfigError, StorageError
from llcuda_net.server.processes import child as children
from llcuda_net.server.processes.child import Child
from llcuda_net.server.processes.database import FOLDER, Database, stop
from llcuda_net.server.processes.folders import MOVE, folder_of, left_by_one
from llcuda_net.server.processes.folders import left_by_processes as left_by
from llcuda_net.server.processes.part import Part
from llcuda_net.server.processes.ports import hold
from llcuda_net.server.service_manager import ServiceManager
from llcuda_net.server.sockets import PassedSockets, tls_context
from llcuda_net.storage.data_dir import default_directory, prepare_folder
from llcuda_net.storage.directory_lock import DirectoryLock
from llcuda_net.util.address import Address
from llcuda_net.util.terminal import echo
from llcuda_net.util.text_files import read_text

log = structlog.get_logger(__name__)

#: Seconds until a process is started again: at first, and at most; and for how long one must have
#: run to be started again at once.
_PAUSE, _LONGEST, _WELL = 0.5, 30.0, 60.0
#: Seconds between two looks at whether the database answers, and for one of an earlier start to
#: end.
_LOOK, _HELD = 0.05, 60.0
#: Seconds after which it is said that it runs and does not answer, each time.
_SILENT = 10.0
#: Seconds beyond those of the drain, after which what has not ended is killed.
_GRACE = 15.0


def run(settings: Settings, given: Sequence[str], engine: Sequence[str] | None) -> int:
    """Serve with several processes until a signal; returns the exit code.

    Args:
        given: the command line's options, which each process gets, too.
        engine: those behind `--`; None: there is no `--`.

    Raises:
        ConfigError: the settings do not go together.
        ListenError: the port cannot be had.
        StorageError: the data directory or the database cannot be used.
    """
    with ServiceManager.take() as manager:
        return _run(settings, given, engine, manager)


def _run(
    settings: Settings,
    given: Sequence[str],
    engine: Sequence[str] | None,
    manager: ServiceManager,
) -> int:
    if PassedSockets.take() != PassedSockets():
        raise ConfigError(
            "several processes share a port that they open themselves: leave the .socket unit out, "
            "or --processes"
        )
    _check(settings)
    directory = Path(settings.data_dir or default_directory()).absolute()
    prepare_folder(directory, shared=settings.data_dir_shared)
    held, port = hold(settings.host, settings.port)
    lock = DirectoryLock(directory, str(Address(settings.host, port)))
    try:
        left_by_one(directory)
        left_by(directory, settings.processes)
        own = Database(directory, settings.processes) if settings.store == "sqlite" else None
        if own is not None:
            _forget_other_databases()
            own.prepare()
        elif Database(directory).exists:
            log.warning("results_elsewhere", folder=str(directory / FOLDER), do=MOVE)
        store = None if own is None else own.url
        made = []
        for number in range(1, settings.processes + 1):
            host, first = _alone(settings, number)
            of_one, alone = hold(host, first)
            held += of_one
            reached = _reached(settings, number) or str(Address(host, alone))
            part = Part(number, settings.processes, host, alone)
            folder = folder_of(directory, number)
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            options = children.options(
                settings, part, folder=folder, port=port, alone=reached, store=store
            )
            made.append(Child(number, children.command_line(given, engine, options)))
        address = str(Address(held[0].getsockname()[0], port))
        return trio.run(_Parent(settings, address, own, made, manager).run)
    finally:
        lock.release()
        for one in held:
            one.close()


def _forget_other_databases() -> None:
    """Of those that the environment names none is meant, here and in the processes."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _alone(settings: Settings, number: int) -> tuple[str, int]:
    """Where a process listens alone; port 0: a free one."""
    if settings.advertise is None:
        return "127.0.0.1", 0
    return settings.host, int(settings.advertise.rpartition(":")[2]) + number - 1


def _reached(settings: Settings, number: int) -> str | None:
    """Where others reach it, by the settings."""
    if settings.advertise is None:
        return None
    host, _, first = settings.advertise.rpartition(":")
    return f"{host}:{int(first) + number - 1}"


def _check(settings: Settings) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("--processes needs a system that spreads connections: Linux")
    if settings.auth_token_file is not None:  # once, and not by each process
        Users.parse(
            read_text(settings.auth_token_file, "token file"),
            f"token file {settings.auth_token_file}",
        )
    tls_context(settings)
    if settings.store == "none":
        raise ConfigError(
            "--processes needs a store that the processes share: leave --store none away"
        )
    limit = settings.memory_limit
    if limit is not None and limit < LEAST_MEMORY * settings.processes:
        raise ConfigError(
            f"--memory-limit {limit} is too little for {settings.processes} processes: each needs "
            f"{LEAST_MEMORY >> 20}M"
        )
    if settings.advertise is not None:
        first = int(settings.advertise.rpartition(":")[2])
        if first <= settings.port < first + settings.processes:
            raise ConfigError(
                f"--advertise {settings.advertise}: that port and those that follow it are of each "
                f"process alone, and --port {settings.port} is of all: choose another one"
            )
        if first + settings.processes > 65_536:
            raise ConfigError(
                f"--advertise {settings.advertise} leaves no port for each of {settings.processes} "
                "processes: they have this one and those that follow it"
            )
    if settings.metrics_port and settings.metrics_port + settings.processes > 65_536:
        raise ConfigError(
            f"--metrics-port {settings.metrics_port} leaves no port for each of "
            f"{settings.processes} processes: they have this one and those that follow it"
        )


class _Parent:
    def __init__(
        self,
        settings: Settings,
        address: str,
        database: Database | None,
        processes: Sequence[Child],
        manager: ServiceManager,
    ) -> None:
        self._settings = settings
        self._manager = manager
        self._address = address
        self._database = database
        self._children = processes
        self._answers = trio.Event()
        self._all = trio.CancelScope()
        self._signals: list[int] = []
        self._stopping = False
        self._failure: StorageError | None = None
        self._code = 0
        self._unsaid: list[str] = []  # until all serve

    async def run(self) -> int:
        async with trio.open_nursery() as around:
            await around.start(self._watch_signals)
            around.start_soon(self._manager.keep_informed, self._doing)
            if self._database is None:
                self._answers.set()
            else:
                around.start_soon(self._keep_database, self._database)
            with self._all:
                async with trio.open_nursery() as nursery:
                    for child in self._children:
                        nursery.start_soon(self._keep, child)
            around.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return 128 + self._signals[-1] if len(self._signals) > 1 else self._code

    def _doing(self) -> str:
        """What they do, for `systemctl status`."""
        if self._stopping:
            return "the processes are ending"
        serving = sum(child.serving and child.pid is not None for child in self._children)
        return f"{serving} of {len(self._children)} processes serve"

    # -- processes ----------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        """Have a process running until all are to end."""
        pause = 0.0
        while True:
            with trio.move_on_after(pause):
                await trio.sleep_forever()
            await self._answers.wait()
            if self._stopping:
                return
            began = trio.current_time()
            child.start()
            code = await child.watch(lambda line: self._printed(child, line))
            if self._stopping:
                return
            if not child.serving and code > 0:
                self._code = code  # it has said why
                self._stop(signal.SIGTERM)
                return
            lived = trio.current_time() - began
            pause = 0.0 if lived >= _WELL else min(2 * pause + _PAUSE, _LONGEST)
            log.error("process_ended", process=child.number, code=code, again_in_seconds=pause)

    def _printed(self, child: Child, line: str) -> None:
        if line.startswith(children.READY):
            log.info("process_serves", process=child.number, pid=child.pid)
            if not child.serving:
                child.serving = True
                if all(one.serving for one in self._children):
                    # The first line of all.
                    self._say(f"{children.READY}{self._address}", *self._unsaid)
                    self._unsaid.clear()
                    self._manager.ready()
                    self._manager.look(self._doing())
        elif all(one.serving for one in self._children):
            self._say(line)
        else:
            self._unsaid.append(line)

    @staticmethod
    def _say(*lines: str) -> None:
        with contextlib.suppress(OSError):  # the parent process may not read it
            for line in lines:
                echo(line, flush=True)

    def _stop(self, number: int) -> None:
        """Have all processes end; they let what runs come to its end, the first time."""
        self._stopping = True
        self._answers.set()  # those that wait for it are to end, too
        for child in self._children:
            child.signal(number)
        seconds = _GRACE + (self._settings.drain_seconds if len(self._signals) < 2 else 0)
        self._all.deadline = trio.current_time() + seconds
        self._manager.stopping(seconds + _GRACE)  # the database ends, too

    async def _watch_signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    for child in self._children:
                        child.signal(number)
                    continue
                self._signals.append(number)
                log.info("signal", name=signal.Signals(number).name)
                self._stop(signal.SIGTERM)

    # -- the database -------------------------------------------------------------------------

    async def _keep_database(self, database: Database) -> None:
        """Have the database running until all processes have ended."""
        pause, answered, since = 0.0, False, trio.current_time()
        while True:
            process: subprocess.Popen[bytes] | None = None
            try:
                process = database.spawn()
                if await self._comes(database, process):
                    if answered:
                        log.info("database_serves")
                    answered, pause = True, 0.0
                    self._answers.set()
                    await trio.to_thread.run_sync(
                        process.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                    )
            except StorageError as error:
                self._fail(error)
                return
            finally:
                if process is not None:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(stop, process)
            held = trio.current_time() - since < _HELD and database.is_held
            if not answered and not held:
                self._fail(
                    StorageError(
                        f"the database does not start: {database.why()}", StorageError.REFUSED
                    )
                )
                return
            pause = min(2 * pause + _PAUSE, _LONGEST)
            log.error("database_ended", reason=database.why(), again_in_seconds=pause)
            await trio.sleep(pause)

    async def _comes(self, database: Database, process: subprocess.Popen[bytes]) -> bool:
        """Wait until it answers; false: it ended before. A recovery may take long."""
        told = trio.current_time() + _SILENT
        while process.poll() is None:
            if await trio.to_thread.run_sync(database.answers):
                return True
            if trio.current_time() >= told:
                log.warning("database_does_not_answer", reason=database.silence)
                told += _SILENT
            await trio.sleep(_LOOK)
        return False

    def _fail(self, error: StorageError) -> None:
        self._failure = error
        self._stop(signal.SIGTERM)
