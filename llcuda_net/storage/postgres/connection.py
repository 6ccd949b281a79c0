"""Connections to PostgreSQL with this store's settings, and its errors as StorageError.

What a session does can be done again: after an answer was lost nobody knows whether a transaction
was committed, so each is written such that its repetition changes nothing more. So a session makes
a broken connection anew and repeats once by itself, and repeats what PostgreSQL has cancelled for
others' sake. All transactions are READ COMMITTED; what they lock is said where they do.

What a role, a database or the environment may set otherwise, and our statements depend on, each
session sets for itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from llcuda_net.errors import StorageError

Connection = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")
#: The schema of all tables.
SCHEMA = "llcuda"
#: The oldest PostgreSQL, as it numbers itself.
_OLDEST = 14_00_00
#: Attempts at a transaction that others got in the way of.
_ATTEMPTS = 5
#: libpq's settings where neither the URL nor the environment says another: a machine that is gone
#: is noticed after 20 s, and of several hosts the one that takes writes is used.
_DEFAULTS: dict[str, tuple[str | None, str | int]] = {
    "connect_timeout": ("PGCONNECT_TIMEOUT", 10),
    "keepalives_idle": (None, 10),
    "keepalives_interval": (None, 5),
    "keepalives_count": (None, 2),
    "tcp_user_timeout": (None, 20_000),
    "application_name": ("PGAPPNAME", "llcuda"),
}
#: Of a session that writes, and of another: how long a statement may take, and wait for a lock.
#: Who is stopped within a transaction that writes holds perhaps its own fence, and the numbers of
#: all results: no longer than a lease. Another one may compute in it, and holds up nobody.
_TIMEOUTS = {
    True: {
        "statement_timeout": "60s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
    },
    False: {
        "statement_timeout": "600s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "60s",
    },
}
_SETTINGS = {
    # PostgreSQL's own names come first by themselves, temporary tables only where that is said.
    "search_path": f"{SCHEMA}, pg_temp",
    "default_transaction_isolation": "read committed",
    "datestyle": "ISO",
    "jit": "off",
    # One plan for every owner would be one for the owner with the most results.
    "plan_cache_mode": "force_custom_plan",
    "extra_float_digits": "1",
}
#: What others' transactions may do to ours: it is done again.
_CONFLICTS = (pg.SerializationFailure, pg.DeadlockDetected)
#: The same later may succeed.
_BUSY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    *_CONFLICTS,
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.TooManyConnections,
    pg.ReadOnlySqlTransaction,
    pg.OutOfMemory,
    pg.ObjectInUse,
    # Of PostgreSQL itself, with its transaction. (A disk that failed ends all of PostgreSQL.)
    psycopg.InternalError,
)
_FULL = (pg.DiskFull,)
_DAMAGE = (pg.DataCorrupted, pg.IndexCorrupted, pg.UndefinedTable, pg.UndefinedColumn)
_REFUSED = (
    pg.InsufficientPrivilege,
    pg.InvalidAuthorizationSpecification,
    pg.InvalidPassword,
    pg.InvalidCatalogName,
    pg.InvalidSchemaName,
)
#: How libpq's messages begin where no connection came about.
_CONNECTING = re.compile(
    r"connection (?:failed|is bad): (?:connection to server at \"[^\"]*\", port \d+ failed: )?"
)
_INVALID = (UnicodeEncodeError, psycopg.DataError, pg.ProgramLimitExceeded, pg.StatementTooComplex)


# What it would say on stderr beside our log, of a connection that broke, is in our errors.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Session:
    """One connection, made when it is used; in one thread at a time.

    Args:
        url: a URL or another connection string of libpq; whatever it leaves out, libpq's
            environment, service file and password file say.
        write: what it changes is to be on the disk when it is done; else that can be done again.
        settings: of libpq, where neither the URL nor the environment says another.

    Attributes:
        one_plan: set it before the first use to have a statement planned once, whatever its values:
            the plan takes longer than a batch of tokens does.

    Raises:
        StorageError: the string is none of libpq's.
    """

    def __init__(self, url: str, *, write: bool, **settings: str | int) -> None:
        self.one_plan = False
        self._write = write
        self._connection: Connection | None = None
        self._closed = False
        if _has_a_doubtful_password(url):
            raise StorageError(
                "--store: a / or an @ of a password or a name is written %2F or %40; a password is "
                "best in ~/.pgpass",
                StorageError.INVALID,
            )
        try:
            given = conninfo_to_dict(url)
            missing = {
                name: settings.get(name, value)
                for name, (_, value) in _DEFAULTS.items()
                if name not in given and not _in_environment(name)
            }
            if write and "target_session_attrs" not in given:
                missing["target_session_attrs"] = "read-write"
            self._conninfo = make_conninfo(url, **missing, client_encoding="UTF8")
        except psycopg.ProgrammingError as error:
            # libpq's message may hold a part of the URL, and that a password.
            raise StorageError(
                "--store: not a connection string of PostgreSQL: give postgresql://user@host/name",
                StorageError.INVALID,
            ) from error
        self.place = _place(given)

    def __repr__(self) -> str:
        how = "closed" if self._connection is None or self._connection.closed else "connected"
        return f"<Session {self.place}, {'writing' if self._write else 'reading'}, {how}>"

    def ask(self, what: str, question: Callable[[Connection], _T]) -> _T:
        """Ask something of one statement, or of more that need not be of one moment.

        Args:
            what: how the message of an error begins.

        Raises:
            StorageError: it was not answered.
        """
        return self._repeat(what, question)

    def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        """Do something in one transaction; it is on the disk when this returns.

        Args:
            change: may be called more than once.

        Raises:
            StorageError: it was not done; or, with the code BUSY, that is not known.
        """

        def in_transaction(connection: Connection) -> _T:
            with connection.transaction():
                return change(connection)

        return self._repeat(what, in_transaction)

    def _repeat(self, what: str, work: Callable[[Connection], _T]) -> _T:
        lost = False
        for attempt in range(1, _ATTEMPTS + 1):
            with errors(what, self.place):
                try:
                    return work(self._connected())
                except _CONFLICTS:
                    if attempt == _ATTEMPTS:
                        raise
                except psycopg.Error as error:
                    connection = self._connection
                    if connection is not None and isinstance(error, pg.ReadOnlySqlTransaction):
                        connection.close()  # another machine takes writes now
                    # A connection that was idle may have been broken for long: that is no failure.
                    if lost or connection is None or not connection.closed:
                        raise
                    lost = True
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> Connection:
        if self._closed:
            raise StorageError("the store is closed")
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        connection: Connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        if connection.info.server_version < _OLDEST:
            raise StorageError(
                f"{self.place} is PostgreSQL {connection.info.server_version // 10_000}: llcuda "
                f"needs {_OLDEST // 10_000} or later",
                StorageError.REFUSED,
            )
        self._refuse_pooled_transactions(connection)
        settings = {**_SETTINGS, **_TIMEOUTS[self._write]}
        if self.one_plan:
            settings["plan_cache_mode"] = "force_generic_plan"
        row = connection.execute(
            "SELECT current_setting('synchronous_commit')"
            + "".join(
                f", set_config('{name}', '{value}', false)" for name, value in settings.items()
            )
        ).fetchone()
        assert row is not None
        synchronous = row[0]
        # Asked from libpq, since texts of a database without an encoding come as bytes.
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StorageError(
                f"{self.place} has the encoding {encoding}, which cannot hold all texts: "
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
                StorageError.REFUSED,
            )
        if self._write and synchronous == "off":
            connection.execute("SET synchronous_commit = on")
        elif not self._write:  # what is derived can be computed again
            connection.execute("SET synchronous_commit = off")

    def _refuse_pooled_transactions(self, connection: Connection) -> None:
        """Raise StorageError where each transaction may have another process of PostgreSQL.

        Settings, LISTEN and advisory locks are a session's: they would be lost, or become others'.
        """
        if _process(connection) == connection.info.backend_pid:
            return  # there is no pooler
        before = _process(connection)
        with psycopg.connect(self._conninfo, autocommit=True) as other, other.transaction():
            # A pool gives the other one first what this one has just left.
            pooled = _process(other) == before or _process(connection) != before
        if pooled:
            raise StorageError(
                f"{self.place} is behind a pooler in transaction mode: give PostgreSQL's own "
                "address, or a pooler in session mode",
                StorageError.REFUSED,
            )

    def close(self) -> None:
        """Close the connection for good; idempotent."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()


def _has_a_doubtful_password(url: str) -> bool:
    """Whether libpq would take a part of a password for the address, which messages name."""
    authority, _, path = url.partition("?")[0].partition("://")[2].partition("/")
    return authority.count("@") > 1 or ("@" in path and "@" not in authority)


def _process(connection: Connection) -> int:
    """The number of the process of PostgreSQL that answers."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def _in_environment(name: str) -> bool:
    variable = _DEFAULTS[name][0]
    return variable is not None and variable in os.environ


def _place(given: dict[str, Any]) -> str:
    """How messages name the database: without its password."""
    if "service" in given:
        return f"the database of the service {given['service']}"
    host, name = given.get("host") or given.get("hostaddr"), given.get("dbname")
    port = f":{given['port']}" if given.get("port") else ""
    return f"the database {name or given.get('user') or ''}{f' at {host}{port}' if host else ''}"


@contextlib.contextmanager
def errors(what: str, place: str = "the database") -> Iterator[None]:
    """Raise psycopg's errors as StorageError, with a message that begins with `what`."""
    try:
        yield
    except (psycopg.Error, UnicodeEncodeError) as error:
        raise as_storage_error(error, what, place) from error


def as_storage_error(error: Exception, what: str, place: str) -> StorageError:
    """The StorageError for one of psycopg's errors."""
    text = " ".join(str(error).split("\n")[0].split())
    if isinstance(error, _FULL):
        return StorageError(f"{what}: {place} has no room: {text}", StorageError.FULL)
    if isinstance(error, _DAMAGE):
        return StorageError(
            f"{what}: {place} is damaged ({text}): restore it from a backup", StorageError.DAMAGED
        )
    if isinstance(error, _REFUSED):
        return StorageError(f"{what}: {place} refuses: {text}", StorageError.REFUSED)
    if isinstance(error, _INVALID) or "invalid memory alloc request size" in text:
        return StorageError(f"{what}: {text}", StorageError.INVALID)
    if isinstance(error, _BUSY):
        return StorageError(f"{what}: {place} {_unanswered(error, text)}", StorageError.BUSY)
    return StorageError(f"{what}: {text}")


def _unanswered(error: Exception, text: str) -> str:
    """What a database does that is not to be asked now: nothing, or it says why not."""
    connection = error.pgconn if isinstance(error, psycopg.OperationalError) else None
    if connection is not None and connection.needs_password:
        return "wants a password: put it into ~/.pgpass"
    _, fatal, why = text.partition("FATAL: ")
    if fatal:
        return f"refuses: {why}"
    return f"does not answer: {_CONNECTING.sub('', text)}"
