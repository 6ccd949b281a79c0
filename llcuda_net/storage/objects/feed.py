"""What other servers have changed, for those who show it: rows that are read each second.

A row is written in the transaction of its change, so nothing is told that did not happen, and
nothing is left out. Transactions end in another order than they begin: so a reader asks for all
rows of those that had not ended when it last asked, and leaves out what it has seen.
"""

from __future__ import annotations

from typing import NamedTuple

from llcuda_net.storage.objects.interface import Database

#: What happened to a conversation.
CREATED, ADDED, CHANGED, DELETED = "created", "added", "changed", "deleted"
#: The sessions of a user have changed.
SESSIONS = "sessions"
#: Seconds for which a change can be read.
KEPT = 600


class Change(NamedTuple):
    """Something that another server has done.

    Attributes:
        owner: the name of the user whose it is.
        id: of the conversation.
        kind: one of those above.
    """

    owner: str
    id: str
    kind: str


class Position(NamedTuple):
    """Up to where changes were read.

    Attributes:
        oldest: the first transaction that had not ended then.
        seen: the numbers of the changes of later ones.
    """

    oldest: int
    seen: frozenset[int]


def position(db: Database) -> Position:
    """Where one begins who wants all that changes from now on."""
    changes, found = since(db, Position(_oldest(db), frozenset()), life=None)
    assert changes is not None
    return found


def since(db: Database, last: Position, life: int | None) -> tuple[list[Change] | None, Position]:
    """What others have changed since, and where that ends.

    Args:
        life: changes of this one are left out.

    Returns:
        None in place of the changes where that is not known: the database was set back.
    """
    oldest = _oldest(db)
    found = db.rows(
        "SELECT number, xid::text::bigint, server, owner, id, kind FROM changes"
        " WHERE xid >= ?::text::xid8 ORDER BY number",
        (str(last.oldest),),
    )
    changes = [
        Change(owner, id_, kind)
        for number, _, server, owner, id_, kind in found
        if number not in last.seen and (life is None or server != life)
    ]
    seen = frozenset(number for number, xid, *_ in found if xid >= oldest)
    return None if oldest < last.oldest else changes, Position(oldest, seen)


def sweep(db: Database) -> None:
    """Forget what everybody has read who reads at all."""
    db.run("DELETE FROM changes WHERE made < clock_timestamp() - make_interval(secs => ?)", (KEPT,))


def _oldest(db: Database) -> int:
    return int(db.value("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
