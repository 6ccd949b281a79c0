"""What a function of objects gets, and what runs it: a transaction in SQLite, or in PostgreSQL.

Statements are the same text for both, with `?` for each value. Where the two need different words,
a Database has them. In SQLite one transaction runs at a time. In PostgreSQL others do meanwhile,
of this server and of others, and each statement sees what was committed before it began: so who
changes what depends on what it has read locks a row first, or a name, and then reads.

A function may run more than once: a database whose answer was lost is asked again. So ids are made
before a transaction, and a function changes nothing but the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from llcuda_net.errors import StorageError

_T = TypeVar("_T")
#: The life of a server that has its objects for itself.
ALONE = 0


class Database(Protocol):
    """One transaction.

    Attributes:
        life: the number of the life of the server whose this is; None: it is no member of its
            cluster now. ALONE: there is no cluster.
        shared: whether other servers change it, too.
        folder: where its files are; None: on another machine, perhaps.
        unlocked: ends a SELECT whose rows are to be changed: it passes over what others change now.
    """

    life: int | None
    shared: bool
    folder: Path | None
    unlocked: str

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        ...

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None: there is no row."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change rows; returns how many."""
        ...

    def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """`run` for each of these values."""
        ...

    def lock(self, table: str, seq: int) -> bool:
        """Let nobody else change a row until the end; whether it is there."""
        ...

    def alone(self, name: str) -> None:
        """Until the end nobody else passes here with this name."""
        ...

    def changed(self, owner: str, id_: str, kind: str) -> None:
        """Tell the other servers, at the commit, that an object has changed; see feed.py."""
        ...

    def among(self, column: str, values: Collection[Any]) -> tuple[str, Any]:
        """A condition that a column has one of these values, and what is to be given for it."""
        ...

    def contains(self, text: str) -> str:
        """A condition that an expression contains the text that is given."""
        ...

    def gone(self, column: str) -> str:
        """A condition that the life in a column is over, or that there is none.

        In SQLite it always is: it is asked at a start.
        """
        ...

    def shrink(self, pages: int) -> None:
        """Give unused room back to the file system."""
        ...


class ObjectStore(Protocol):
    """Where objects are kept.

    Attributes:
        life: see Database; set by the server.
        failed: why nothing is written any more; None while it is.
    """

    life: int | None
    failed: StorageError | None

    @property
    def shared(self) -> bool:
        """Whether other servers change it, too."""
        ...

    async def open(self) -> None:
        """Open it; made or brought up to date if need be.

        Raises:
            StorageError: it is of a newer version, is damaged, or cannot be used.
        """
        ...

    async def aclose(self) -> None:
        """Close it, after what runs now."""
        ...

    async def read(self, question: Callable[[Database], _T]) -> _T:
        """What a function of a transaction returns; all it reads is of one moment.

        Raises:
            StorageError: it cannot be read, or the function raised it.
        """
        ...

    async def write(self, change: Callable[[Database], _T]) -> _T:
        """Run a function in a transaction; on the disk when this returns.

        A transaction that has begun cannot be cancelled. Where the function raises, nothing is
        changed.

        Raises:
            StorageError: nothing was changed; unless `failed` is set, or the code is BUSY: then
                that is not known. What the function raises itself passes as it is.
        """
        ...

    def held(self, name: str) -> AbstractAsyncContextManager[None]:
        """Within the block no other server is in one with this name.

        It is a courtesy: who does not let go for some seconds, or loses the database, is passed.
        """
        ...
