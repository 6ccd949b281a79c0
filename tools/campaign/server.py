"""llcuda-server as a process that can be killed with -9 and restarted at the same address."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tools.overhead.processes import ROOT

#: Seconds for a server to start listening, or to end on SIGTERM.
PATIENCE = 60.0
#: Below the ephemeral ports, so that no other process takes the port meanwhile, and no client ever
#: connects to itself.
_PORTS = range(20_000, 32_000)


class ServerError(Exception):
    """The server did not start, or ended by itself; the message quotes its log."""


class Server:
    """A server that can be started and killed any number of times.

    Args:
        folder: its data directory; the log goes beside it.
        options: of its command line.
        broken: how it is broken on purpose, one of the MODES of `breaker`; None: not at all.
        breaker: the script that breaks the server and runs it.

    Attributes:
        log_level: what is logged, from the next start on.
    """

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        broken: str | None = None,
        breaker: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder.with_suffix(".log")
        self._options = options
        self._how = ["-m", "llcuda_net.cli.server"]
        if broken is not None and breaker is not None:
            self._how = [str(breaker), broken]
        self.log_level = "warning"
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it; returns at once. `ready` reports failures."""
        options = ["--port", str(self.port), "--data-dir", str(self.folder), "--no-analysis"]
        options += self._options
        with self._log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, *self._how, *options, "--log-level", self.log_level],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
                start_new_session=True,  # Ctrl-C reaches only us, and we end it
            )

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    async def ready(self) -> None:
        """Return when it serves.

        Raises:
            ServerError: it does not.
        """
        assert self._process is not None
        stdout = self._process.stdout
        assert stdout is not None
        line = b""
        with trio.move_on_after(PATIENCE):
            while not line.endswith(b"\n") and (data := await stdout.receive_some(4096)):
                line += data
        if not line.startswith(b"listening on "):
            raise ServerError(f"llcuda-server did not start: {self.said()}")

    @property
    def is_there(self) -> bool:
        """Whether it was started, and neither killed nor stopped."""
        return self._process is not None

    def check(self) -> None:
        """Check that it has not ended by itself.

        Raises:
            ServerError: it has.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ServerError(f"llcuda-server ended with {code}: {self.said()}")

    async def kill(self) -> None:
        """kill -9; returns when it is gone.

        Raises:
            ServerError: it had ended before, by itself.
        """
        process = self._process
        assert process is not None
        process.kill()
        await self._gone()
        if process.returncode != -signal.SIGKILL:
            raise ServerError(f"llcuda-server ended with {process.returncode}: {self.said()}")

    async def stop(self) -> None:
        """Stop it as an operator does.

        Raises:
            ServerError: it did not end, or not well.
        """
        process = self._process
        assert process is not None
        process.terminate()
        with trio.move_on_after(PATIENCE):
            await process.wait()
        code = process.returncode
        await self.end()
        if code != 0:
            raise ServerError(f"llcuda-server ended with {code} on SIGTERM: {self.said()}")

    async def end(self) -> None:
        """Kill it if it runs."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            await self._gone()

    async def _gone(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()

    def said(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(line[:300] for line in lines[-3:]) or "it said nothing"

    def complaints(self) -> list[str]:
        """The lines of its log about bugs, or about damage, which a kill must not cause."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        bad = ("Traceback", "_crashed", "journal_damaged")
        return [line[:300] for line in lines if any(word in line for word in bad)]


@asynccontextmanager
async def ended(server: Server) -> AsyncIterator[Server]:
    """The server, which does not outlive the block."""
    try:
        yield server
    finally:
        await server.end()


def free_port() -> int:
    """A free port of this machine."""
    for port in random.sample(_PORTS, len(_PORTS)):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise ServerError(f"no free port from {_PORTS.start} to {_PORTS.stop}")


def environment() -> dict[str, str]:
    """Our environment without settings of llcuda, and with the packages of this tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLCUDA_")}
    paths = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "kernels")]
    paths += filter(None, [kept.get("PYTHONPATH")])
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"}
