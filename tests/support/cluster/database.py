"""A database that servers share, and transactions in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from llcuda_net.cluster import leases
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.storage.postgres.migrations import migrate

_T = TypeVar("_T")
#: Seconds of a lease that is over as soon as it is taken, and of one that is not over in this test.
OVER, LONG = -1.0, 3600.0


class Shared:
    """A database with the schema of a cluster."""

    def __init__(self, url: str, pool: ThreadPoolExecutor) -> None:
        self.url = url
        self.pool = pool
        self.session = Session(url, write=True)
        migrate(self.session)

    def __repr__(self) -> str:
        return f"<Shared {self.url}>"

    def do(self, work: Callable[[Connection], _T]) -> _T:
        """Do it in a transaction."""
        return self.session.change("it", work)

    def beside(self, work: Callable[[Connection], _T]) -> Callable[[], _T]:
        """The same on a connection of its own, in a thread."""

        def run() -> _T:
            session = Session(self.url, write=True)
            try:
                return session.change("it", work)
            finally:
                session.close()

        return run

    def join(self, seconds: float = LONG) -> int:
        """A server's life, with a lease of so many seconds."""
        return self.do(lambda db: leases.join(db, "name", "127.0.0.1:1", seconds))

    def fence(self, me: int, other: int) -> None:
        """Have a server fenced."""
        assert self.do(lambda db: leases.renew(db, other, OVER))
        assert self.do(lambda db: leases.fence(db, me, other))


@contextmanager
def shared(url: str) -> Iterator[Shared]:
    """The database at this URL, with threads for transactions beside each other."""
    with ThreadPoolExecutor(4) as pool:
        out = Shared(url, pool)
        try:
            yield out
        finally:
            out.session.close()
