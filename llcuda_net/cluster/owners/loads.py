"""What each server has to do, which all of them exchange each second.

A load says nothing on which safety rests: it is up to a second old, or older where a server is
slow, and decides only where a request is to wait and who is served next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from llcuda_net.config.users import Priority
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.records import DECODE_ERRORS

_SAY = (
    "INSERT INTO loads (server, at, data) SELECT number, clock_timestamp(), %s FROM servers"
    " WHERE number = %s AND NOT fenced ON CONFLICT (server) DO UPDATE SET at = excluded.at,"
    " data = excluded.data"
)
_HEAR = (
    "SELECT s.number, l.data, extract(epoch FROM clock_timestamp() - l.at) FROM servers s"
    " JOIN leases e ON e.server = s.number AND e.expires > clock_timestamp()"
    " JOIN loads l ON l.server = s.number WHERE NOT s.fenced AND s.number <> %s ORDER BY s.number"
)

#: What is counted here fits into calculations with others.
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Real = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]


class ModelLoad(msgspec.Struct, frozen=True, array_like=True):
    """What a server has to do for one model.

    Attributes:
        aliases: names that mean the model there, too.
        slots: of the upstreams that it has and that are up.
        free: of these, how many may be given out.
        queued: requests that wait.
        wait: seconds until one more would have a slot, estimated; None: not known.
        due: of those that wait, how many are to go where a slot is free.
    """

    aliases: tuple[str, ...] = ()
    slots: _Count = 0
    free: _Count = 0
    queued: _Count = 0
    wait: _Real | None = None
    due: _Count = 0

    def beside(self, other: ModelLoad) -> ModelLoad:
        """What two servers have to do for it together; for how long one waits is not known."""
        return ModelLoad(
            tuple(dict.fromkeys((*self.aliases, *other.aliases))),
            self.slots + other.slots,
            self.free + other.free,
            self.queued + other.queued,
        )


class Served(msgspec.Struct, frozen=True, array_like=True):
    """What a user was served of one model, in one class, since a server's life began.

    Attributes:
        priority: the class, as `config.users.Priority` numbers it.
        tokens: read and made, those of what runs included.
    """

    model: str
    priority: Annotated[int, msgspec.Meta(ge=int(min(Priority)), le=int(max(Priority)))]
    user: str
    tokens: _Real


class Load(msgspec.Struct, frozen=True, array_like=True):
    """What one server has to do.

    Attributes:
        models: by name, the default one first.
        reaches: upstreams that answer it, by URL, with the name of their model.
        served: only what has lately changed.
        running: by user, how many of their requests run there.
        held: upstreams that only this server can have, its own engines: how many.
        embeds: the models, by all of their names, with which it embeds texts now.
        vectors: of which buckets (storage/results/buckets.py) it holds the vectors, by the space
            that these are of; None: it searches nothing by meaning.
        signatures: by URL, of the models of its upstreams: the others tell models apart by these,
            too, as they ask only their own upstreams for any.
    """

    models: dict[str, ModelLoad] = {}
    reaches: dict[str, str] = {}
    served: tuple[Served, ...] = ()
    running: dict[str, _Count] = {}
    held: _Count = 0
    embeds: tuple[str, ...] = ()
    vectors: dict[int, bytes] | None = None
    signatures: dict[str, dict[int, float]] = {}


@dataclass(frozen=True)
class OtherLoad:
    """The load of another live server.

    Attributes:
        server: its number.
        age: seconds since it said so.
    """

    server: int
    load: Load
    age: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Load).decode


def exchange(db: Connection, me: int, load: Load) -> list[OtherLoad]:
    """Say what this server has to do, and hear what the other live ones have."""
    db.execute(_SAY, (_encode(load), me))
    return [
        OtherLoad(server, load_there, float(age))
        for server, data, age in db.execute(_HEAR, (me,), binary=True).fetchall()
        if (load_there := read(data)) is not None
    ]


def read(data: bytes) -> Load | None:
    """A load; None: it is of a version that writes it in another way, or nonsense."""
    try:
        return _decode(data)
    except DECODE_ERRORS:
        return None
