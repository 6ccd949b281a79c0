"""Sessions: of browsers that showed a token once, and since then show a cookie.

A session is known by the hash of the id that its cookie holds. `bound` is a hash of the token with
that id as key. So who reads this table has neither, and cannot try out tokens on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from llcuda_net.storage.results.connection import rows


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


def change(db: apsw.Connection, kept: Session | None, ended: Iterable[bytes] = ()) -> None:
    """Keep a session, or when one expires that is kept already; forget those with these hashes."""
    for one in ended:
        db.execute("DELETE FROM sessions WHERE hash = ?", (one,))
    if kept is not None:
        db.execute(
            "INSERT INTO sessions (hash, owner, bound, created, expires) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (hash) DO UPDATE SET expires = excluded.expires",
            (kept.hash, kept.user, kept.bound, kept.created, kept.expires),
        )


def every(db: apsw.Connection) -> list[Session]:
    """All of them, those that have expired, too; the oldest first."""
    found = rows(db, "SELECT hash, owner, bound, created, expires FROM sessions ORDER BY created")
    return [Session(*row) for row in found]
