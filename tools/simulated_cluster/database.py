"""A model of the database: each function of `cluster.leases` as one step, on plain values.

tests/llcuda_net/cluster/test_leases_model.py compares it with PostgreSQL, statement by statement.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from llcuda_net.cluster.leases import HANDED_OVER, Member
from llcuda_net.cluster.standing import LEASE
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted

_T = TypeVar("_T")


@dataclass
class Server:
    """A row of `servers`."""

    name: str
    address: str
    started: float
    fenced: bool = False
    adopter: int | None = None
    adopted: bool = False
    trimmed: int = 0


@dataclass
class Generation:
    """A row of `generations`."""

    owner: str
    server: int
    epoch: int = 1


@dataclass
class Database:
    """All tables. Where `fencing` is False, it is broken: whoever is fenced can write.

    Attributes:
        now: the clock.
        started: when the database did, the last time.
    """

    now: Callable[[], float]
    fencing: bool = True
    started: float = -1000.0
    servers: dict[int, Server] = field(default_factory=dict)
    leases: dict[int, float] = field(default_factory=dict)
    generations: dict[str, Generation] = field(default_factory=dict)
    batches: dict[int, dict[int, bytes]] = field(default_factory=dict)
    adoptions: set[tuple[int, str]] = field(default_factory=set)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    results: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def transaction(self, work: Callable[[Database], _T]) -> _T:
        """Do something wholly, or not at all where it raises."""
        tables = ("servers", "leases", "generations", "batches", "adoptions", "keys", "results")
        before = {name: getattr(self, name) for name in tables}
        for name in tables:
            setattr(self, name, {**before[name]} if name != "adoptions" else {*before[name]})
        self.servers = {number: copy.copy(one) for number, one in self.servers.items()}
        self.generations = {id_: copy.copy(one) for id_, one in self.generations.items()}
        self.batches = {number: {**one} for number, one in self.batches.items()}
        try:
            return work(self)
        except BaseException:
            for name in tables:
                setattr(self, name, before[name])
            raise

    # -- leases -------------------------------------------------------------------------------

    def identity(self) -> str:
        """See cluster.leases."""
        return "store"

    def join(self, name: str, address: str, seconds: float = LEASE) -> int:
        """See cluster.leases."""
        number = len(self.servers) + 1
        self.servers[number] = Server(name, address, self.now())
        self.leases[number] = self.now() + seconds
        self.batches[number] = {}
        return number

    def members(self) -> list[Member]:
        """See cluster.leases."""
        return [
            Member(number, one.name, one.address, one.started, self.leases[number] - self.now())
            for number, one in self.servers.items()
            if number in self.leases
        ]

    def renew(self, me: int, seconds: float = LEASE) -> bool:
        """See cluster.leases."""
        if me not in self.leases:
            return not self.fencing
        self.leases[me] = self.now() + seconds
        return True

    def _is_fenced(self, number: int | None) -> bool:
        one = self.servers.get(number or 0)
        return one is None or one.fenced

    def _may_write(self, me: int) -> bool:
        return not self._is_fenced(me) or not self.fencing

    def hold(self, me: int) -> bool:
        """See cluster.leases."""
        return self._may_write(me)

    def append(
        self,
        me: int,
        number: int,
        data: bytes,
        accepts: Sequence[Accept] = (),
        ended: Sequence[str] = (),
    ) -> bool:
        """See cluster.leases."""
        if not self._may_write(me) or self.servers[me].trimmed >= number:
            return False
        if number in self.batches[me]:
            return True
        self.batches[me][number] = data
        for one in accepts:
            self.generations.setdefault(one.id, Generation(one.owner, me))
        for id_ in ended:
            # As in one statement: what this very batch accepts is not seen.
            if id_ in self.generations and self.generations[id_].server == me:
                del self.generations[id_]
        return True

    def release(self, me: int, ids: Sequence[str]) -> bool:
        """See cluster.leases."""
        others = set()
        for id_ in ids:
            found = self.generations.get(id_)
            if self._may_write(me) and found is not None and found.server == me:
                del self.generations[id_]
            else:
                others.add(id_)
        if not others or not self.fencing:
            return True
        return not self.servers[me].fenced and others <= self.results.keys()

    def trim(self, me: int, low: int) -> None:
        """See cluster.leases."""
        server = self.servers[me]
        if not server.fenced and server.trimmed < low - 1:
            server.trimmed = low - 1
            for number in [one for one in self.batches[me] if one < low]:
                del self.batches[me][number]

    def expired(self, me: int, grace: float = LEASE) -> list[int]:
        """See cluster.leases."""
        now = self.now()
        late = self.started < now - grace
        return [
            number
            for number, one in self.servers.items()
            if number != me
            and not one.adopted
            and (
                (late and self.leases.get(number, now) < now)
                or (one.fenced and (one.adopter == me or self._is_fenced(one.adopter)))
            )
        ]

    def fence(self, me: int, other: int) -> bool:
        """See cluster.leases."""
        if other in self.leases and not self.leases[other] < self.now():
            return False
        return self._fence(me, other)

    def fence_former(self, me: int, former: int) -> bool:
        """See cluster.leases."""
        return self._fence(me, former)

    def _fence(self, me: int, other: int) -> bool:
        mine, its = self.servers.get(me), self.servers.get(other)
        if me == other or mine is None or its is None or mine.fenced:
            return False
        if its.adopted or (its.fenced and its.adopter != me and not self._is_fenced(its.adopter)):
            return False
        self.leases.pop(other, None)
        its.fenced, its.adopter = True, me
        return True

    def leave(self, me: int) -> None:
        """See cluster.leases."""
        self.leases.pop(me, None)
        server = self.servers.get(me)
        if server is not None and not server.fenced:
            server.fenced = True
            if not self.owned(me):
                server.adopted = True
                self.batches[me].clear()

    # -- adoption -----------------------------------------------------------------------------

    def journal(self, server: int, after: int = 0, limit: int = 64) -> list[tuple[int, bytes]]:
        """See cluster.leases."""
        found = sorted(one for one in self.batches.get(server, {}) if one > after)[:limit]
        return [(number, self.batches[server][number]) for number in found]

    def last(self, server: int) -> int:
        """See cluster.leases."""
        return max(self.batches.get(server, {}), default=0)

    def owned(self, server: int) -> dict[str, int]:
        """See cluster.leases."""
        found = self.generations.items()
        return {id_: one.epoch for id_, one in sorted(found) if one.server == server}

    def was_handed_over(self, server: int) -> bool:
        """See cluster.leases."""
        return server in self.servers and self.servers[server].name == HANDED_OVER

    def adopt(
        self, me: int, other: int, number: int, generations: Sequence[Adopted]
    ) -> dict[str, int] | None:
        """See cluster.leases."""
        its = self.servers.get(other)
        if me not in self.servers or its is None or not self._may_write(me):
            return None
        if not its.fenced or its.adopter != me:
            return None
        bodies: list[bytes] = []
        for one in generations:
            found = self.generations.get(one.generation)
            if found is not None and found.server == other:
                found.server, found.epoch = me, found.epoch + 1
                self.adoptions.add((other, one.generation))
                bodies += one.bodies
        if bodies:
            self.append(me, number, joined(bodies))
        ids = [one.generation for one in generations]
        return {id_: epoch for id_, epoch in self.owned(me).items() if id_ in ids}

    def adopted(self, me: int, other: int) -> bool:
        """See cluster.leases."""
        its = self.servers[other]
        if self.owned(other) or not its.fenced or its.adopter != me:
            return False
        its.adopted = True
        self.batches[other].clear()
        return True

    def taken(self, server: int) -> set[str]:
        """See cluster.leases."""
        return {id_ for other, id_ in self.adoptions if other == server}

    def orphaned(self, ids: Sequence[str]) -> set[str]:
        """See cluster.leases."""
        known = {id_ for _, id_ in self.adoptions} | self.generations.keys() | self.results.keys()
        return {*ids} - known

    def hand_over(self, me: int, to: int, ids: Sequence[str], data: bytes) -> bool:
        """See cluster.owners.handing."""
        mine = [id_ for id_ in ids if id_ in self.owned(me)]
        if not mine:
            return True
        if me == to or self._is_fenced(me) or self._is_fenced(to):
            return False
        number = len(self.servers) + 1
        self.servers[number] = Server(HANDED_OVER, "", self.now(), fenced=True, adopter=to)
        self.batches[number] = {1: data}
        for id_ in mine:
            self.generations[id_].server = number
        return True

    # -- what other modules do ----------------------------------------------------------------

    def put(self, id_: str, pieces: tuple[str, ...]) -> None:
        """Store a result, if there is none."""
        self.results.setdefault(id_, pieces)

    def claim_keys(self, me: int, accepts: Sequence[Accept]) -> dict[str, str]:
        """Take the keys of generations; those that others have."""
        taken: dict[str, str] = {}
        if not self._may_write(me):
            return taken
        for one in accepts:
            assert one.key is not None
            has = self.keys.setdefault((one.owner, one.key), one.id)
            if has != one.id:
                taken[one.id] = has
        return taken


#: The functions of `cluster.leases` that are replaced by methods of the same name.
STATEMENTS = (
    "identity",
    "join",
    "members",
    "renew",
    "hold",
    "append",
    "release",
    "trim",
    "expired",
    "fence",
    "fence_former",
    "leave",
    "journal",
    "last",
    "owned",
    "was_handed_over",
    "adopt",
    "adopted",
    "taken",
    "orphaned",
)
