"""The PostgreSQL that several processes of one machine share, where no other one was given.

It is in the data directory, listens on a socket there and nowhere else, and does not outlive who
started it: Linux ends it with its parent (PR_SET_PDEATHSIG). Its folder is its working directory,
which it knows as /proc/self/cwd: so it reaches its data even as a user to whom the folders above
are closed, as they are to `nobody` where root runs us. Whoever may enter the folder, may connect:
that is its owner alone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from llcuda_net.errors import MissingExtra, StorageError
from llcuda_net.server.processes import programs

#: The folder in a data directory, and that of the data in it.
FOLDER, _DATA = "postgres", "data"
#: Most bytes of a socket's path.
_LONGEST = 107
_PORT = 5432  # there is no port: a part of the socket's name
_SOCKET = f".s.PGSQL.{_PORT}"
#: The user and the database in it.
_USER = _NAME = "llcuda"
_CWD = "/proc/self/cwd"
_PR_SET_PDEATHSIG = 1
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "cluster_name": "llcuda",
}
#: Connections of each process, and of others.
_OF_EACH, _OF_OTHERS = 32, 24
#: Bytes of the log of earlier starts that are kept.
_LOG = 4 << 20
#: Seconds for it to end by itself, and for one of an earlier start to be gone.
_ENDING = 60.0


class Database:
    """One PostgreSQL in a folder of a data directory. Its methods block.

    Args:
        directory: the data directory.
        processes: how many use it.

    Attributes:
        silence: why it did not answer at the last look.
    """

    def __init__(self, directory: Path, processes: int = 1) -> None:
        self._folder = directory.resolve() / FOLDER
        self._data = self._folder / _DATA
        self._processes = processes
        self._programs: programs.Programs | None = None
        self.silence = ""

    def __repr__(self) -> str:
        return f"<Database in {self._folder}>"

    @property
    def exists(self) -> bool:
        """Whether it was ever made."""
        return self._data.exists()

    @property
    def url(self) -> str:
        """How to reach it, whatever PGPORT and PGOPTIONS say; there is no password."""
        host = quote(str(self._data), safe="")
        return f"postgresql:///{_NAME}?host={host}&port={_PORT}&user={_USER}&options="

    def prepare(self) -> None:
        """Find the programs, and make the files if there are none.

        Raises:
            StorageError: there are no programs, or the folder cannot be used.
        """
        if sys.platform != "linux":
            raise _refused("a database of llcuda's own is for Linux: give --store postgresql://…")
        if len(os.fsencode(self._data / _SOCKET)) > _LONGEST:
            most = _LONGEST - len(f"/{FOLDER}/{_DATA}/{_SOCKET}")
            raise _refused(
                f"the path of the data directory {self._folder.parent} is too long for a socket in "
                f"it: choose a --data-dir of at most {most} bytes"
            )
        self._programs = found = programs.find()
        if self.exists:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            new = self._folder / f"{_DATA}.new"
            shutil.rmtree(new, ignore_errors=True)  # of a start that was cut off
            new.mkdir(mode=0o700)
            found.give(new)
            options = ["-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
            done = found.run("initdb", "-D", _CWD, *options, cwd=new)
            if done.returncode:
                raise _refused(
                    f"no database can be made in {self._folder}: {_last(done.stderr + done.stdout)}"
                )
            new.rename(self._data)
        except OSError as error:
            raise _refused(
                f"no database can be made in {self._folder}: {error.strerror or error}"
            ) from error

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it; call this in a thread that lives as long as it shall.

        Raises:
            StorageError: it cannot be started.
        """
        assert self._programs is not None
        connections = _OF_EACH * self._processes + _OF_OTHERS
        settings = {**_SETTINGS, "max_connections": str(connections)}
        options = [text for pair in settings.items() for text in ("-c", "=".join(pair))]
        log = self._folder / "log"
        try:
            if log.exists() and log.stat().st_size > _LOG:
                log.replace(log.with_suffix(".old"))
            with open(log, "ab", opener=_private) as file:
                return subprocess.Popen(
                    [self._programs.folder / "postgres", "-D", _CWD, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=self._data,
                    env=programs.environment(),
                    process_group=0,  # Ctrl-C is for who started it
                    preexec_fn=end_with_parent(signal.SIGINT),
                    **self._programs.options,
                )
        except OSError as error:
            raise _refused(
                f"the database in {self._folder} cannot be started: {error.strerror or error}"
            ) from error

    def answers(self) -> bool:
        """Whether it takes connections; makes the database at the first one.

        Raises:
            MissingExtra: psycopg is not installed.
        """
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra(
                f"--processes needs psycopg ({error}): pip install 'llcuda-net[cluster]'"
            ) from error
        url = self.url.replace(f"/{_NAME}?", "/postgres?", 1)
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                sql = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(sql, (_NAME,)).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {_NAME}")
        except psycopg.OperationalError as error:
            self.silence = " ".join(str(error).split())
            return False
        return True

    def why(self) -> str:
        """The last thing that it said, for the message of an error."""
        with suppress(OSError):
            return _last((self._folder / "log").read_text(errors="replace")[-10_000:])
        return ""

    @property
    def is_held(self) -> bool:
        """Whether one of an earlier start still runs, by what the last one said."""
        said = self.why()
        return "lock file" in said or "shared memory block" in said


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, so that it needs no recovery; in a bounded time."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The URL of a data directory's database, which is started for the while if it is not running.

    Raises:
        StorageError: it cannot be started.
    """
    database = Database(directory)
    if not directory.is_dir():
        raise _refused(f"there is no folder {directory}")
    if database.exists and database.answers():
        yield database.url
        return
    database.prepare()
    process = database.spawn()
    try:
        while not database.answers():
            if process.poll() is not None:
                raise _refused(f"the database in {directory} does not start: {database.why()}")
            time.sleep(0.05)
        yield database.url
    finally:
        stop(process)


def reach(directory: Path) -> str:
    """As `running`, until this process ends.

    Raises:
        StorageError: it cannot be started.
    """
    stack = ExitStack()
    url = stack.enter_context(running(directory))
    atexit.register(stack.close)
    return url


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a new process calls, so that it gets a signal when the thread that started it ends."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:  # it ended before that was armed
                os._exit(1)

    return prepare


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _last(text: str) -> str:
    """The line that says what was wrong: the last fatal one, or else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if "FATAL:" in line or "error:" in line]
    return ([*lines, *wrong] or ["it says nothing"])[-1]


def _refused(message: str) -> StorageError:
    return StorageError(message, StorageError.REFUSED)
