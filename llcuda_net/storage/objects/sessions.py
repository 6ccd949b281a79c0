"""Sessions: of browsers that showed a token once, and since then show a cookie.

A session is known by the hash of the id that its cookie holds. `bound` is a hash of the token with
that id as key. So who reads this table has neither, and cannot try out tokens on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from llcuda_net.storage.objects.feed import SESSIONS
from llcuda_net.storage.objects.interface import Database


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that is signed in.

    Attributes:
        hash: of the id.
        user: the name of whose it is.
        bound: names the token by which it began.
        created, expires: Unix times in seconds.
    """

    hash: bytes
    user: str
    bound: bytes
    created: int
    expires: int


def change(db: Database, kept: Session | None, ended: Iterable[bytes] = ()) -> None:
    """Keep a session, or when one expires that is kept already; forget those with these hashes."""
    for one in sorted(ended):  # in one order, whoever else does so
        db.run("DELETE FROM sessions WHERE hash = ?", (one,))
        db.changed("", one.hex(), SESSIONS)
    if kept is not None:
        db.run(
            "INSERT INTO sessions (hash, owner, bound, created, expires) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (hash) DO UPDATE SET expires = excluded.expires",
            (kept.hash, kept.user, kept.bound, kept.created, kept.expires),
        )
        db.changed("", kept.hash.hex(), SESSIONS)


def every(db: Database) -> list[Session]:
    """All of them, those that have expired, too; the oldest first."""
    found = db.rows("SELECT hash, owner, bound, created, expires FROM sessions ORDER BY created")
    return [Session(*row) for row in found]


def some(db: Database, hashes: Collection[bytes]) -> list[Session]:
    """Those with these hashes."""
    found = [
        db.rows("SELECT hash, owner, bound, created, expires FROM sessions WHERE hash = ?", (one,))
        for one in hashes
    ]
    return [Session(*row) for rows in found for row in rows]
