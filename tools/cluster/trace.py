"""What servers and the database know of the generations that a violation names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.store import PostgresStore

#: Generations that are looked for, and lines that are told of each: the last ones.
_MOST, _LINES = 3, 40
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Of a log's line, what is told before the rest, or not at all.
_HEAD = ("timestamp", "event", "level", "generation")


def named_in(texts: Iterable[str]) -> list[str]:
    """The ids of the generations that these name, the first ones."""
    found = dict.fromkeys(id_ for text in texts for id_ in _ID.findall(text))
    return [*found][:_MOST]


def of_logs(id_: str, logs: Sequence[Path]) -> list[str]:
    """Each line of these logs that names a generation, as they followed each other."""
    found = []
    for path in logs:
        with suppress(OSError):
            for line in path.read_text("utf-8", "replace").splitlines():
                if id_ in line:
                    found.append(_told(path.stem, line))
    return sorted(found)[-_LINES:]


def _told(server: str, line: str) -> str:
    """A line of a log, that begins with its time."""
    try:
        entry = json.loads(line)
        time, event = str(entry["timestamp"])[11:23], entry["event"]
    except (ValueError, KeyError, TypeError):
        return f"{server}: {line[:300]}"
    rest = ", ".join(f"{name} {value}" for name, value in entry.items() if name not in _HEAD)
    return f"{time} {server}: {event} {rest}"[:400]


def of_database(id_: str, url: str) -> list[str]:
    """Who has a generation by the database, and what is stored of it."""
    out = []
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=2) as db:
            has = db.execute(
                "SELECT s.name, g.server, g.epoch, s.fenced, s.adopter FROM llcuda.generations g"
                " JOIN llcuda.servers s ON s.number = g.server WHERE g.id = %s",
                (id_,),
            ).fetchone()
            if has is not None:
                name, number, epoch, fenced, adopter = has
                gone = f", which is fenced; its adopter: {adopter}" if fenced else ""
                out.append(f"database: {name}, life {number}, has it, epoch {epoch}{gone}")
            lives = db.execute("SELECT number, name, fenced FROM llcuda.servers ORDER BY 1")
            told = (f"{n} {name}{' fenced' * fenced}" for n, name, fenced in lives.fetchall())
            out.append(f"database: lives: {', '.join(told)}")
        with closing(PostgresStore(url)) as store:
            result = store.get(id_)
        if result is not None:
            ended = datetime.fromtimestamp(result.finished / 1e9, UTC)
            why = f": {result.error}" if result.error else ""
            count = len(result.log.pieces)
            out.append(
                f"database: its result, of {ended:%H:%M:%S.%f}: {result.state}, {count} pieces, "
                f"spliced at {[one.position for one in result.continuations]}{why}"
            )
    except (psycopg.Error, StorageError) as error:
        out.append(f"database: {str(error).strip().splitlines()[0]}")
    return out
