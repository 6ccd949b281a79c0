"""Claims of upstreams, as statements of PostgreSQL.

Every function runs in one transaction of its caller, READ COMMITTED, and may be called again after
its answer was lost. Locks: the own row of `servers` in share mode, then rows of `upstreams` in the
order of their URLs.

A claim needs the fence of whoever had the upstream before, or that it was given back: then that one
asks it no more (see cluster/standing.py for how it stops in time).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llcuda_net.storage.postgres.connection import Connection

_CLAIM = (
    "WITH me AS (SELECT number FROM servers WHERE number = %(me)s AND NOT fenced FOR SHARE),"
    " taken AS (INSERT INTO upstreams AS u (url, server)"
    " SELECT d.url, me.number FROM unnest(%(urls)s::text[]) AS d (url), me ORDER BY d.url"
    " ON CONFLICT (url) DO UPDATE SET server = excluded.server, epoch = u.epoch + 1"
    " WHERE u.server IS NULL OR NOT EXISTS"
    " (SELECT 1 FROM servers s WHERE s.number = u.server AND NOT s.fenced))"
    " SELECT count(*) FROM me"
)
_GIVE = (
    "WITH mine AS (SELECT url FROM upstreams WHERE url = ANY(%s) AND server = %s ORDER BY url"
    " FOR UPDATE) UPDATE upstreams u SET server = NULL FROM mine WHERE u.url = mine.url"
)
_ASK = (
    "INSERT INTO handovers AS h (url, server)"
    " SELECT url, %s::bigint FROM unnest(%s::text[]) AS d (url) ORDER BY url"
    " ON CONFLICT (url) DO UPDATE SET server = excluded.server, asked = clock_timestamp()"
    " WHERE h.server <> excluded.server"
)


@dataclass(frozen=True)
class Claim:
    """An upstream that some server has, or had.

    Attributes:
        server: who has it; None: nobody.
        epoch: counts those who had it.
        live: whether that server is not fenced.
        wanted_by: the server that asks for it; None: none does.
        wanted: seconds for which that has been so.
    """

    url: str
    server: int | None
    epoch: int
    live: bool
    wanted_by: int | None
    wanted: float


def claim(db: Connection, me: int, urls: Collection[str]) -> bool:
    """Take upstreams that nobody has, or a server that is fenced; False: this one is fenced.

    What came of it, `claims` says.
    """
    row = db.execute(_CLAIM, {"me": me, "urls": sorted(urls)}).fetchone()
    db.execute("DELETE FROM handovers WHERE url = ANY(%s) AND server = %s", (sorted(urls), me))
    return row is not None and row[0] == 1


def claims(db: Connection) -> list[Claim]:
    """All upstreams that were ever claimed."""
    return [
        Claim(url, server, epoch, bool(live), wanted_by, float(wanted or 0.0))
        for url, server, epoch, live, wanted_by, wanted in db.execute(
            "SELECT u.url, u.server, u.epoch, NOT s.fenced, w.number,"
            " extract(epoch FROM clock_timestamp() - h.asked) FROM upstreams u"
            " LEFT JOIN servers s ON s.number = u.server LEFT JOIN handovers h ON h.url = u.url"
            " LEFT JOIN servers w ON w.number = h.server AND NOT w.fenced ORDER BY u.url"
        )
    ]


def give(db: Connection, me: int, urls: Collection[str]) -> int:
    """Give upstreams back: this server asks them no more; how many it had."""
    return db.execute(_GIVE, (sorted(urls), me)).rowcount


def give_all(db: Connection, me: int) -> None:
    """Give all back, and ask for none: this server ends."""
    db.execute("UPDATE upstreams SET server = NULL WHERE server = %s", (me,))
    db.execute("DELETE FROM handovers WHERE server = %s", (me,))


def ask(db: Connection, me: int, urls: Collection[str]) -> None:
    """Ask those who have upstreams to give them to this server."""
    db.execute(_ASK, (me, sorted(urls)))


def withdraw(db: Connection, me: int, urls: Collection[str]) -> None:
    """Ask for them no more."""
    db.execute("DELETE FROM handovers WHERE url = ANY(%s) AND server = %s", (sorted(urls), me))
