"""A model of the database: each statement of `cluster` as one step, on plain values.

tests/llcuda_net/cluster/test_leases_model.py compares it with PostgreSQL, statement by statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.leases import HANDED_OVER, Member, Place
from llcuda_net.cluster.owners import claims, handing, loads
from llcuda_net.cluster.standing import LEASE
from llcuda_net.storage.replica.bodies import joined
from llcuda_net.storage.replica.interface import Accept, Adopted
from tools.simulated_cluster.database.claims import Claims, Load, Upstream
from tools.simulated_cluster.database.results import Key, Keys, Stored

_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """A row of `servers`."""

    name: str
    address: str
    started: float
    fenced: bool = False
    adopter: int | None = None
    adopted: bool = False
    trimmed: int = 0


@dataclass(frozen=True)
class Generation:
    """A row of `generations`."""

    owner: str
    server: int
    epoch: int = 1


@dataclass
class Database(Claims, Keys):
    """All tables: dicts of values that are replaced, never changed.

    Attributes:
        now: the clock.
        broken: "", or one of what `world.BROKEN` names: a rule that does not hold here.
        started: when the database did, the last time.
    """

    now: Callable[[], float]
    broken: str = ""
    started: float = -1000.0
    servers: dict[int, Server] = field(default_factory=dict)
    leases: dict[int, float] = field(default_factory=dict)
    generations: dict[str, Generation] = field(default_factory=dict)
    batches: dict[int, dict[int, bytes]] = field(default_factory=dict)
    adoptions: dict[tuple[int, str], None] = field(default_factory=dict)
    keys: dict[tuple[str, str], Key] = field(default_factory=dict)
    results: dict[str, Stored] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    handovers: dict[str, tuple[int, float]] = field(default_factory=dict)
    loads: dict[int, Load] = field(default_factory=dict)

    def transaction(self, work: Callable[[Database], _T]) -> _T:
        """Do something wholly, or not at all where it raises."""
        before = {name: {**getattr(self, name)} for name in _TABLES}
        try:
            return work(self)
        except BaseException:
            for name, table in before.items():
                setattr(self, name, table)
            raise

    # -- leases -------------------------------------------------------------------------------

    def identity(self) -> str:
        """See cluster.leases."""
        return "store"

    def secret(self) -> bytes:
        """See cluster.leases."""
        return b"secret"

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
            return self.broken == "no-fencing"
        self.leases[me] = self.now() + seconds
        return True

    def is_fenced(self, number: int | None) -> bool:
        """Whether a server may write nothing, or there is none."""
        one = self.servers.get(number or 0)
        return one is None or one.fenced

    def may_write(self, me: int) -> bool:
        """Whether what a server writes is taken."""
        return not self.is_fenced(me) or self.broken == "no-fencing"

    def hold(self, me: int) -> bool:
        """See cluster.leases."""
        return self.may_write(me)

    def append(
        self,
        me: int,
        number: int,
        data: bytes,
        accepts: Sequence[Accept] = (),
        ended: Sequence[str] = (),
    ) -> bool:
        """See cluster.leases."""
        return self.added(me, number, data, accepts, ended) is not None

    def added(
        self,
        me: int,
        number: int,
        data: bytes,
        accepts: Sequence[Accept] = (),
        ended: Sequence[str] = (),
    ) -> bool | None:
        """See cluster.leases."""
        if not self.may_write(me) or self.servers[me].trimmed >= number:
            return None
        if number in self.batches[me]:
            return False
        self.batches[me] = {**self.batches[me], number: data}
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
            if self.may_write(me) and found is not None and found.server == me:
                del self.generations[id_]
            else:
                others.add(id_)
        if not others or self.broken == "no-fencing":
            return True
        return not self.servers[me].fenced and others <= self.results.keys()

    def trim(self, me: int, low: int) -> None:
        """See cluster.leases."""
        server = self.servers[me]
        if not server.fenced and server.trimmed < low - 1:
            self.servers[me] = replace(server, trimmed=low - 1)
            batches = self.batches[me]
            self.batches[me] = {number: data for number, data in batches.items() if number >= low}

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
                or (one.fenced and (one.adopter == me or self.is_fenced(one.adopter)))
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
        if its.adopted or (its.fenced and its.adopter != me and not self.is_fenced(its.adopter)):
            return False
        if self.broken == "never-fences":
            self.servers[other] = replace(its, adopter=me)
            return True
        self.leases.pop(other, None)
        self.servers[other] = replace(its, fenced=True, adopter=me)
        return True

    def leave(self, me: int) -> None:
        """See cluster.leases."""
        self.leases.pop(me, None)
        server = self.servers.get(me)
        if server is not None and not server.fenced:
            adopted = not self.owned(me)
            self.servers[me] = replace(server, fenced=True, adopted=adopted)
            if adopted:
                self.batches[me] = {}

    # -- adoption -----------------------------------------------------------------------------

    def was_fenced(self, server: int) -> bool:
        """See cluster.leases."""
        return server in self.servers and self.servers[server].fenced

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

    def place(self, id_: str) -> Place | None:
        """See cluster.leases."""
        found = self.generations.get(id_)
        if found is None:
            return None
        server = self.servers[found.server]
        return Place(found.owner, found.server, found.epoch, server.address, server.fenced)

    def was_handed_over(self, server: int) -> bool:
        """See cluster.leases."""
        return server in self.servers and self.servers[server].name == HANDED_OVER

    def adopt(
        self, me: int, other: int, number: int, generations: Sequence[Adopted]
    ) -> dict[str, int] | None:
        """See cluster.leases."""
        its = self.servers.get(other)
        if me not in self.servers or its is None:
            return None
        if not self.may_write(me) or its.adopter != me:
            return None
        if not its.fenced and self.broken != "never-fences":
            return None
        bodies: list[bytes] = []
        for one in generations:
            found = self.generations.get(one.generation)
            if found is not None and found.server == other:
                moved = replace(found, server=me, epoch=found.epoch + 1)
                self.generations[one.generation] = moved
                self.adoptions[other, one.generation] = None
                bodies += one.bodies
        if bodies:
            self.batches[me] = {number: joined(bodies), **self.batches[me]}
        ids = [one.generation for one in generations]
        return {id_: epoch for id_, epoch in self.owned(me).items() if id_ in ids}

    def adopted(self, me: int, other: int) -> bool:
        """See cluster.leases."""
        its = self.servers[other]
        if self.owned(other) or its.adopter != me:
            return False
        if not its.fenced and self.broken != "never-fences":
            return False
        self.servers[other] = replace(its, adopted=True)
        self.batches[other] = {}
        return True

    def taken(self, server: int) -> set[str]:
        """See cluster.leases."""
        return {id_ for other, id_ in self.adoptions if other == server}

    def orphaned(self, ids: Sequence[str]) -> set[str]:
        """See cluster.leases."""
        known = {id_ for _, id_ in self.adoptions} | self.generations.keys() | self.results.keys()
        return {*ids} - known

    def epoch_of(self, me: int, id_: str) -> int | None:
        """See cluster.owners.handing."""
        return self.owned(me).get(id_)

    def hand_over(self, me: int, to: int, ids: Mapping[str, int], data: bytes) -> bool:
        """See cluster.owners.handing."""
        mine = [id_ for id_, epoch in ids.items() if self.owned(me).get(id_) == epoch]
        if not mine:
            return True
        if me == to or self.is_fenced(me) or self.is_fenced(to):
            return False
        number = len(self.servers) + 1
        self.servers[number] = Server(HANDED_OVER, "", self.now(), fenced=True, adopter=to)
        self.batches[number] = {1: data}
        for id_ in mine:
            self.generations[id_] = replace(self.generations[id_], server=number)
        return True


#: Tables, each of which is a dict.
_TABLES = (
    *("servers", "leases", "generations", "batches", "adoptions", "keys", "results"),
    *("upstreams", "handovers", "loads"),
)
#: The product's functions that are replaced by methods of these names.
STATEMENTS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(leases, name)
        for name in (
            *(
                "identity",
                "secret",
                "join",
                "members",
                "renew",
                "hold",
                "append",
                "release",
                "trim",
            ),
            *("expired", "fence", "fence_former", "leave", "was_fenced", "journal", "last"),
            *("owned", "adopt", "adopted", "taken", "orphaned"),
            *("was_handed_over", "place", "added"),
        )
    },
    "hand_over": handing.hand_over,
    "epoch_of": handing.epoch_of,
    "claim_keys": keys.claim,
    "find_key": keys.find,
    "unknown_keys": keys.unknown,
    "release_keys": keys.release,
    "sweep_keys": keys.sweep,
    "claim": claims.claim,
    "claims": claims.claims,
    "give": claims.give,
    "ask": claims.ask,
    "withdraw": claims.withdraw,
    "exchange": loads.exchange,
}
