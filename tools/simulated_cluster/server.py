"""A server of the simulation: the product's parts, and around them what a gateway does.

The product's are: Membership, Mirror, the recovery and both takeovers, Life (what is done with the
standing), Owners and Planner (which upstreams it asks), Handing. Here is in short what runs a
generation: it asks upstreams for pieces, journals them, shows them, stores results.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

from llcuda_net.cluster import keys, leases
from llcuda_net.cluster.standing import Standing
from llcuda_net.cluster.takeover import Takeover
from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generation.persistence import refused
from llcuda_net.server.cluster.handing import Handing
from llcuda_net.server.cluster.life import Hooks, Life
from llcuda_net.storage.records import Opened
from llcuda_net.storage.replica.interface import Former
from llcuda_net.storage.replica.takeover import Takeover as Into
from llcuda_net.storage.starting import Recovered
from tools.simulated_cluster.clock.scheduler import Machine
from tools.simulated_cluster.clock.waiting import Waiting, drive
from tools.simulated_cluster.database.results import Stored
from tools.simulated_cluster.journal import Disk, Journal
from tools.simulated_cluster.members import LivesOnDisk, SimulatedMembership, SimulatedMirror
from tools.simulated_cluster.network import Network, Session
from tools.simulated_cluster.outside import Outside
from tools.simulated_cluster.pool import Pool, SimulatedOwners
from tools.simulated_cluster.requests import Requests
from tools.simulated_cluster.runner import RETRY, TOKEN, Runner
from tools.simulated_cluster.running import Left, Registry, Running, opened_again

_T = TypeVar("_T")
#: Seconds between two looks at the standing, and between two sweeps of keys.
_LOOK, _SWEEP = 0.25, 5.0
#: Where a life's own database would be; nothing connects to it.
_URL = "postgresql:///simulated"


class Server:
    """One process, on a machine of its own.

    Args:
        disk: its data directory.
        rate: how fast its clock goes.
        broken: see world.BROKEN.

    Attributes:
        registry: the generations that it has.
        over: what it has told of those that have ended here.
    """

    def __init__(
        self,
        machine: Machine,
        network: Network,
        waiting: Waiting,
        rng: random.Random,
        disk: Disk,
        outside: Outside,
        *,
        rate: float = 1.0,
        broken: str = "",
    ) -> None:
        self.machine = machine
        self.registry = Registry()
        self.over: dict[str, Stored] = {}
        self.listener = SimpleNamespace(hand_back=lambda error: None)
        self.draining = False
        self._ready = False  # requests wait until what former lives left goes on
        self._left: list[Left] = []
        self._outside = outside
        self._broken = broken
        self._rng = rng
        self._network = network
        self._scheduler = network.scheduler
        scheduler = network.scheduler
        self.membership = SimulatedMembership(
            self._session(), LivesOnDisk(disk.lives), scheduler, machine.name, rate
        )
        self.mirror = SimulatedMirror(self._session(), scheduler, broken)
        self.mirror.claim_keys = keys.claim_accepted
        self.mirror.on_fenced = self.membership.refused
        self.journal = Journal(disk, self.mirror)
        self._into: Any = Into(self.journal, self.mirror)  # type: ignore[arg-type]
        self.pool = Pool(network.upstreams(machine))
        self.owners = SimulatedOwners(self, self.pool)
        hooks = Hooks([self.owners.stopped], [self.owners.life])
        self.life = Life(self.membership, hooks, self._join, self._orphaned)
        self._takeover = Takeover(_URL, self.membership, self.adopt)
        self._takeover._session = self._session()  # type: ignore[assignment]
        host: Any = self
        self.requests = Requests(self, scheduler, rng, outside.new_id, outside.servers)
        self._handing = Handing(self, host, self._elsewhere, lambda model: None, lambda one: None)
        self.runner = Runner(self, self._session(), outside, scheduler)
        self._asking = self._session()

    def __repr__(self) -> str:
        return f"<Server {self.machine!r} {self.membership!r}>"

    def _session(self) -> Session:
        return Session(self._network, self.machine, self._rng)

    # -- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run."""
        self.do(self._main)

    def do(self, work: Callable[[], object]) -> None:
        """Have a greenlet of this process do something."""
        self._scheduler.start(self.machine, work)

    def _main(self) -> None:
        self.do(self.mirror._serve)
        mine = self._boot()
        self.membership.on_news = self.life.news
        self.do(self.membership.run)
        drive(self.resume(mine))
        self._ready = True
        self.do(lambda: drive(self.life.follow(self)))  # type: ignore[arg-type]
        self.owners.life(self.number)
        for seconds, work in (
            (_LOOK, self._look_after_others),
            (1.0, lambda: drive(self.owners._try())),
            (1.0, self._hand_over),
            (_SWEEP, self._sweep),
            (TOKEN, self.runner.generate),
        ):
            self.do(partial(self._each, seconds, work))

    def _each(self, seconds: float, work: Callable[[], object]) -> None:
        while not self.draining:
            self._scheduler.sleep(seconds)
            work()

    def _boot(self) -> list[Recovered]:
        """As Storage.run: what goes on of former lives of the data directory."""
        while True:
            try:
                drive(self._join())
                mine, elsewhere = drive(self._into.start(self.journal.recover()))
            except StorageError:
                self._scheduler.sleep(RETRY)
                continue
            for _, entry in elsewhere:
                self.journal.forget(entry, elsewhere=True)
            return [Recovered(entry, one.packed, one.gap) for one, entry in mine]

    async def _join(self) -> int:
        """As Cluster.join."""
        number = self.membership.join()
        self.mirror.begin(number, self.membership.former, self.membership.settled)
        self.over.clear()
        return number

    async def _orphaned(self, ids: Collection[str]) -> Collection[str]:
        """As Cluster._orphaned."""
        if not ids:
            return ()
        return await self.change("", partial(leases.orphaned, ids=[*ids]))

    def _look_after_others(self) -> None:
        """As Cluster._take_over."""
        if self.membership.due:
            drive(self._take_over())

    async def _take_over(self) -> None:
        async with self.life.changing:
            if self.life.member and not self.draining:
                await self._takeover.look()

    def leave(self, gone: Callable[[], object]) -> None:
        """End as on SIGTERM: others need not wait for the lease."""
        self.draining = True
        for one in self.registry:
            one.conceal()

        def work() -> None:
            with contextlib.suppress(StorageError):
                drive(self.mirror.until(self.mirror.position))
            with contextlib.suppress(StorageError):
                self.membership.leave()
            self._scheduler.after(0.0, gone)

        self.do(work)

    # -- the cluster, as its parts see it -----------------------------------------------------

    @property
    def number(self) -> int:
        """See Cluster."""
        return self.membership.number

    def standing(self) -> Standing:
        """See Cluster."""
        return self.membership.standing()

    async def ask(self, what: str, question: Callable[[Any], _T]) -> _T:
        """See Cluster."""
        try:
            return self._asking.ask(what, question)
        except StorageError as error:
            raise refused(error) from None

    async def change(self, what: str, change: Callable[[Any], _T]) -> _T:
        """See Cluster."""
        try:
            return self._asking.change(what, change)
        except StorageError as error:
            raise refused(error) from None

    # -- the gateway, as the cluster sees it --------------------------------------------------

    def aside(self, one: Running) -> None:
        """It is stopped as it is."""
        self.registry.drop(one)
        self._left.append(Left(one))

    def left_aside(self, only: Running | None = None) -> list[Left]:
        """See Persistence.left."""
        found = [one for one in self._left if only is None or one.generation is only]
        self._left = [one for one in self._left if one not in found]
        return found

    def begin_again(self, entries: Sequence[Recovered]) -> None:
        """See Storage.begin_again."""
        for one in entries:
            self._into.begin(opened_again(one), one.entry)

    def forget(self, left: Left) -> None:
        """See Persistence."""
        self.journal.forget(left.entry, elsewhere=True)

    async def committed(self) -> None:
        """See Gateway."""
        try:
            await self.mirror.until(self.mirror.position)
        except StorageError as error:
            raise refused(error) from None

    async def adopt(self, former: Former) -> None:
        """See Resumption and Storage."""
        pairs = await self._into.adopt(former.number, former.generations)
        entries = [Recovered(entry, one.packed, one.gap) for one, entry in pairs]
        await self.resume(entries, whole=former.whole)

    async def resume(self, entries: Sequence[Recovered], *, whole: bool = False) -> None:
        """See Resumption."""
        found = [Running.again(one, self.aside) for one in entries]
        for one in found:
            if whole:
                self._outside.moved(one.id, len(one.pieces))
            elif self._broken != "same-epoch":
                count, epoch = len(one.pieces), one.splices[-1][1] if one.splices else 0
                one.splices.append((count, self._outside.next_epoch(epoch)))
                one.entry.splice(count, "", one.splices[-1][1])
        with contextlib.suppress(RequestError):
            await self.committed()
        for one in found:
            if one.entry.taken is None:  # as Persistence.is_ours
                self.registry.by_id[one.id] = one
            else:
                self.journal.forget(one.entry, elsewhere=True)

    def without_upstream(self) -> list[tuple[Running, str | None]]:
        """See Gateway."""
        return [(one, None) for one in self.registry if not (one.upstream or one.storing)]

    def short_of_slots(self, since: float) -> list[Any]:
        """See Hosting: what waits for a slot is told by `without_upstream`."""
        return []

    # -- requests -----------------------------------------------------------------------------

    @property
    def is_member(self) -> bool:
        """See Cluster."""
        return self._ready and self.life.member and self.membership.may_begin()

    @property
    def accepts(self) -> bool:
        """Whether requests may begin."""
        return self.is_member and not self.draining

    def begin(self, opened: Opened) -> Running:
        """Have a generation begin here."""
        entry = self.journal.start(opened)
        one = Running(entry, self.aside)
        self.registry.by_id[one.id] = one
        self._outside.begun(one.id, opened.key or "")
        self.mirror.send()

        def committed(error: StorageError | None) -> None:
            if error is not None:
                return  # it is set aside, and then forgotten
            if entry.taken is not None:
                self.registry.drop(one)
                self.journal.forget(entry, elsewhere=True)
            elif one in self.registry:
                one.accepted = True
                self._outside.accepted(one.id)

        self.runner.when(entry.accepted_at, committed)
        return one

    def keeps_alone(self, id_: str) -> bool:
        """See Persistence."""
        return any(one.generation.id == id_ for one in self._left)

    async def held(self, owner: str, key: str) -> keys.Held | None:
        """What a key means."""
        return await self.ask("", partial(keys.find, owner=owner, key=key))

    def _sweep(self) -> None:
        """As Placing.sweep."""
        with contextlib.suppress(RequestError):
            drive(self.requests.placing.sweep_once())

    # -- handing over -------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """As Handing.run."""
        if self.standing() is Standing.MEMBER and self.life.member:
            drive(self._handing.look())

    def _elsewhere(self, model: str | None) -> int | None:
        """A server that has an upstream; as Owners.route."""
        return self._rng.choice(found) if (found := self.owners.having()) else None


def silent(logged: Callable[..., None]) -> Any:
    """What stands for a module's log."""
    return SimpleNamespace(
        debug=logged, info=logged, warning=logged, error=logged, exception=_crashed
    )


def _crashed(event: str, **more: Any) -> None:
    """A bug that the product would have survived."""
    raise
