"""Transactions of PostgreSQL side by side, each in a thread, and who of them waits for a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from llcuda_net.storage.postgres.connection import Connection, Session

_T = TypeVar("_T")
_PATIENCE = 60.0


class Standing(Session):
    """A session whose transactions stand before their commit until they are let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url, write=True)
        self.stands, self.go = threading.Event(), threading.Event()

    def change(self, what: str, change: Callable[[Connection], _T]) -> _T:
        def stand(db: Connection) -> _T:
            out = change(db)
            db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            self.stands.set()
            assert self.go.wait(_PATIENCE)
            return out

        return super().change(what, stand)


@contextmanager
def standing(
    url: str, pool: ThreadPoolExecutor, work: Callable[[Session], Any]
) -> Iterator[Future[Any]]:
    """Work that has done all but its commit; it is let go at the end of the block.

    Yields:
        its result, which is there after the block.
    """
    session = Standing(url)
    done = pool.submit(work, session)
    assert session.stands.wait(_PATIENCE)
    try:
        yield done
    finally:
        session.go.set()
        done.exception(_PATIENCE)
        session.close()


def wait_for_lock(url: str, count: int = 1) -> None:
    """Return when so many wait for a lock in a database."""
    sql = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            row = connection.execute(sql).fetchone()
            if row is not None and row[0] >= count:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")
