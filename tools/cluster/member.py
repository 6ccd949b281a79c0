"""A place in the cluster: one server after another, behind the same addresses."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from tools.campaign.server import Server, ServerError
from tools.cluster.links import Gate

#: Seconds for all attempts to start a server: a bound for hangs, since the database may be away, or
#: the machine busy.
_PATIENCE = 240.0
#: Seconds from one attempt to start a server to the next.
_AGAIN = 1.0
#: Characters of a line that are told.
_MOST = 600
#: Lines of a log that say of a bug, or of damage, which no fault of the campaign may cause.
_BAD = ("Traceback", "_crashed", "journal_damaged")


class Member:
    """A server of the cluster, replaced by a new one when it was killed for good.

    Args:
        name: of the place; each server there is called by it and its number.
        options: of llcuda-server, but for its name and its disk.
        front: the gate of its clients.
        side: the gate of the other servers, and the address that it says is its own.
        is_clustered: it knows of others.

    Attributes:
        trouble: what is wrong with it on purpose; "" for nothing.
        failed_starts: how often a server had to be started again.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        options: Sequence[str],
        front: Gate,
        side: Gate,
        *,
        is_clustered: bool,
        broken: str | None = None,
        breaker: Path | None = None,
    ) -> None:
        self.name = name
        self.trouble = ""
        self.failed_starts = 0
        self.front = front
        self.side = side
        self._folder = folder
        self._options = list(options)
        self._is_clustered = is_clustered
        self._broken = (broken, breaker)
        self._lives = 0
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"<Member {self.name}, server {self._lives}, {self.trouble or 'well'}>"

    @property
    def label(self) -> str:
        """The name of its server now."""
        return f"{self.name}-{self._lives}"

    @property
    def pid(self) -> int:
        """Of its process; 0: there is none."""
        server = self._server
        return server.pid if server is not None and server.is_there else 0

    async def begin(self) -> None:
        """Start a new server, with an empty disk.

        Raises:
            ServerError: it does not start.
        """
        self._lives += 1
        name = self.label
        options = [*self._options]
        if self._is_clustered:
            options += ["--name", name, "--advertise", self.side.address]
        self._server = Server(self._folder / name, options, *self._broken)
        self._server.log_level = "info"  # to explain violations
        self.front.target_port = self.side.target_port = self._server.port
        await self.start()

    async def start(self) -> None:
        """Start the server, with the disk that it had.

        Raises:
            ServerError: it does not start.
        """
        assert self._server is not None
        until = trio.current_time() + _PATIENCE
        while True:
            await self._server.start()
            try:
                await self._server.ready()
            except ServerError:  # the database may be away: whoever supervises it starts it again
                if trio.current_time() > until:
                    raise
                self.failed_starts += 1
                await self._server.end()
                await trio.sleep(_AGAIN)
            else:
                return

    async def kill(self, *, for_good: bool) -> None:
        """kill -9; `for_good`: its disk is gone, too.

        Raises:
            ServerError: it had ended before, by itself.
        """
        assert self._server is not None
        await self._server.kill()
        if for_good:
            shutil.rmtree(self._server.folder, ignore_errors=True)

    async def stop(self) -> None:
        """Stop it as an administrator does.

        Raises:
            ServerError: it did not end, or not well.
        """
        assert self._server is not None
        await self._server.stop()

    def pause(self, paused: bool) -> None:
        """SIGSTOP, or SIGCONT."""
        if self.pid:
            os.kill(self.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def check(self) -> None:
        """Check that it has not ended by itself.

        Raises:
            ServerError: it has.
        """
        if self._server is not None:
            self._server.check()

    async def end(self) -> None:
        """Kill it if it runs."""
        if self._server is not None:
            with trio.CancelScope(shield=True):
                await self._server.end()

    def logs(self) -> list[Path]:
        """The logs of all servers that were here."""
        return sorted(self._folder.glob(f"{self.name}-*.log"))

    def complaints(self) -> list[str]:
        """What the logs say of bugs, or of damage."""
        out = []
        for path in self.logs():
            with contextlib.suppress(OSError):
                text = path.read_text("utf-8", "replace")
                out += [f"{path.stem}: {complaint}" for complaint in complaints_of(text)]
        return out


def complaints_of(log: str) -> list[str]:
    """What a log has of bugs, or of damage; of a traceback what it ends with, which says most."""
    out: list[str] = []
    is_traceback = False
    for line in log.splitlines():
        if line.startswith("{"):
            is_traceback = False
            if any(word in line for word in _BAD):
                out.append(line[:_MOST])
            continue
        text = line.strip(" +-|")
        if is_traceback and text.strip("0123456789"):
            out[-1] = text[:_MOST]
        elif any(word in line for word in _BAD):
            is_traceback = True
            out.append(text[:_MOST])
    return out


__all__ = ["Member", "ServerError"]
