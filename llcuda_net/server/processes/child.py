"""One of several processes: its command line, its life, and what it prints."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from llcuda_net.config.settings import LEAST_MEMORY, Settings
from llcuda_net.server.processes.database import end_with_parent
from llcuda_net.server.processes.part import OPTION, Part
from llcuda_net.util.process_memory import cgroup_limit

#: How the line begins with which a server says that it serves.
READY = "listening on "
_CHUNK = 4096
#: Seconds for what it has printed last.
_LAST_WORDS = 1.0


def command_line(
    given: Sequence[str], engine: Sequence[str] | None, overriding: Sequence[str]
) -> list[str]:
    """The command line of a process: what the user gave, and behind it what counts instead.

    Args:
        given: options of llcuda-server.
        engine: those behind `--`; None: there is no `--`.
    """
    behind = [] if engine is None else ["--", *engine]
    return [sys.executable, "-P", "-m", "llcuda_net.cli.server", *given, *overriding, *behind]


def options(
    settings: Settings, part: Part, *, folder: Path, port: int, alone: str, store: str | None
) -> list[str]:
    """What a process is given that differs from what all were given.

    Args:
        folder: its data directory.
        port: the one that all share.
        alone: where the others reach it.
        store: the database that is ours; None: the one that the settings name.
    """
    name = settings.name or socket.gethostname()
    out = ["--processes", "1", OPTION, str(part), "--port", str(port), "--data-dir", str(folder)]
    out += ["--name", f"{name}-{part.number}", "--advertise", alone]
    if store is not None:
        out += ["--store", store]
    if settings.metrics_port:
        out += ["--metrics-port", str(settings.metrics_port + part.number - 1)]
    limit, group = settings.memory_limit, cgroup_limit()
    if limit is not None or group is not None:
        total = group // 2 if limit is None and group is not None else limit or 0
        out += ["--memory-limit", str(max(LEAST_MEMORY, total // part.of))]
    if not settings.upstream:
        # Each runs models of its own, and together they may take what one would.
        cores = len(os.sched_getaffinity(0))
        out += ["--threads", str(settings.threads or max(1, cores // part.of))]
        for name in ("memory", "gpu_memory"):
            if (total := getattr(settings, name)) is not None:
                out += [f"--{name.replace('_', '-')}", str(total // part.of)]
    return out


class Child:
    """A process that is started as often as need be.

    Args:
        number: from 1 on.
        command: its command line.

    Attributes:
        serving: whether it has ever served.
    """

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.serving = False
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Child {self.number}, process {self.pid}>"

    @property
    def pid(self) -> int | None:
        """Its process; None: there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it; in a thread that lives as long as it shall.

        Raises:
            OSError: it cannot be started.
        """
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for who started it, who passes it on
            preexec_fn=end_with_parent(signal.SIGKILL),
        )

    async def watch(self, on_line: Callable[[str], None]) -> int:
        """Its exit code, when it has ended; negative for a signal. If cancelled, it is killed.

        Args:
            on_line: gets each line that it prints.
        """
        assert self._process is not None
        process, silent = self._process, trio.Event()
        assert process.stdout is not None
        output = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
        process.stdout.close()

        async def read() -> None:
            text = b""
            with suppress(trio.BrokenResourceError):
                async for data in output:
                    *lines, text = (text + data).split(b"\n")
                    for line in lines:
                        on_line(line.decode(errors="replace"))
                    text = text[-_CHUNK:]
            silent.set()

        try:
            async with trio.open_nursery() as nursery, output:
                nursery.start_soon(read)
                await trio.to_thread.run_sync(
                    process.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
                )
                with trio.move_on_after(_LAST_WORDS):  # what it has started may have its stdout
                    await silent.wait()
                nursery.cancel_scope.cancel()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            self._process = None
        return process.returncode

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
