"""The part of the model that says who asks which upstream, and what each server has to do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llcuda_net.cluster.owners.claims import Claim
from llcuda_net.cluster.owners.loads import Load as Told
from llcuda_net.cluster.owners.loads import OtherLoad

if TYPE_CHECKING:
    from tools.simulated_cluster.database.tables import Server


@dataclass(frozen=True)
class Upstream:
    """A row of `upstreams`."""

    server: int | None
    epoch: int = 1


@dataclass(frozen=True)
class Load:
    """A row of `loads`."""

    at: float
    told: Told


class Claims:
    """Statements of cluster.owners; a part of Database."""

    now: Callable[[], float]
    broken: str
    servers: dict[int, Server]
    leases: dict[int, float]
    upstreams: dict[str, Upstream]
    handovers: dict[str, tuple[int, float]]
    loads: dict[int, Load]

    def is_fenced(self, number: int | None) -> bool:
        """See Database."""
        raise NotImplementedError

    def may_write(self, me: int) -> bool:
        """See Database."""
        raise NotImplementedError

    def claim(self, me: int, urls: Collection[str]) -> bool:
        """See cluster.owners.claims."""
        may = self.may_write(me)
        for url in sorted(urls):
            found = self.upstreams.get(url)
            if may and found is None:
                self.upstreams[url] = Upstream(me)
            elif may and found is not None and self._is_free(found):
                self.upstreams[url] = Upstream(me, found.epoch + 1)
        self.withdraw(me, urls)
        return may

    def _is_free(self, found: Upstream) -> bool:
        if found.server is None or self.is_fenced(found.server):
            return True
        return self.broken == "claims-early" and self.leases[found.server] < self.now() + 4.5

    def claims(self) -> list[Claim]:
        """See cluster.owners.claims."""
        found = []
        for url, one in sorted(self.upstreams.items()):
            live = one.server is not None and not self.is_fenced(one.server)
            if self.broken == "claims-early":
                live = live and not self._is_free(one)
            by, asked = self.handovers.get(url, (None, self.now()))
            wanted_by = None if by is None or self.is_fenced(by) else by
            found.append(Claim(url, one.server, one.epoch, live, wanted_by, self.now() - asked))
        return found

    def give(self, me: int, urls: Collection[str]) -> int:
        """See cluster.owners.claims."""
        mine = [url for url in urls if url in self.upstreams and self.upstreams[url].server == me]
        for url in mine:
            self.upstreams[url] = Upstream(None, self.upstreams[url].epoch)
        return len(mine)

    def ask(self, me: int, urls: Collection[str]) -> None:
        """See cluster.owners.claims."""
        for url in urls:
            if url not in self.handovers or self.handovers[url][0] != me:
                self.handovers[url] = me, self.now()

    def withdraw(self, me: int, urls: Collection[str]) -> None:
        """See cluster.owners.claims."""
        for url in urls:
            if self.handovers.get(url, (None,))[0] == me:
                del self.handovers[url]

    def exchange(self, me: int, load: Told) -> list[OtherLoad]:
        """See cluster.owners.loads."""
        if not self.is_fenced(me):
            self.loads[me] = Load(self.now(), load)
        now = self.now()
        return [
            OtherLoad(number, one.told, now - one.at)
            for number, one in sorted(self.loads.items())
            if number != me and not self.is_fenced(number) and self.leases.get(number, now) > now
        ]
