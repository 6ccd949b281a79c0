"""Fairness over the servers of a cluster, in virtual time: what is started for whom, and how far
that is from what all servers together have served."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import trio

from llcuda_net.cluster.owners.loads import Load, OtherLoad, Served
from llcuda_net.cluster.owners.sharing import Sharing, running_elsewhere
from llcuda_net.config.users import Priority, User
from llcuda_net.scheduler.fair_share import CREDIT
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest
from tests.support.scheduler_slots import ANN, BOB, Desk, Slots, running

#: Tokens per second of a slot, of a request at most, seconds between two reports, and how old they
#: are at most when they are heard.
RATE, LENGTH, EVERY, AGE = 50.0, 200, 1.0, 1.0
SECONDS = 60.0


@dataclass
class Site:
    """A server with some slots, and what it has done."""

    number: int
    slots: Slots
    scheduler: Scheduler
    waiting: Counter[str] = field(default_factory=Counter)
    sharing: Sharing = field(default_factory=Sharing)
    #: What it said last, and when.
    said: tuple[float, Load] = (0.0, Load())


class Sites:
    """Several servers, and users who always have work at some of them."""

    def __init__(self, sizes: list[int], seed: int, *, exchange: bool = True) -> None:
        self.rng = random.Random(seed)
        self.exchange = exchange
        self.served: Counter[str] = Counter()
        self.weights: dict[str, float] = {}
        #: By how many weighted tokens who was started was ahead of another one who waited there.
        self.ahead = 0.0
        self.sites = []
        for number, size in enumerate(sizes, 1):
            slots = Slots(size)
            scheduler = Scheduler(slots.place, 1000)
            slots.on_free = scheduler.dispatch
            self.sites.append(Site(number, slots, scheduler))

    def total(self, user: str) -> float:
        return self.served[user] / self.weights[user]

    async def run(self, presence: dict[User, list[int]], seconds: float = SECONDS) -> None:
        """Let users have work at these servers for so long."""
        self.weights = {user.name: user.weight for user in presence}
        async with trio.open_nursery() as nursery:
            for site in self.sites:
                nursery.start_soon(site.scheduler.run)
                if self.exchange:
                    nursery.start_soon(self._say, site)
            for user, numbers in presence.items():
                for number in numbers:
                    for _ in range(2 * self.sites[number].slots.size):
                        nursery.start_soon(self._work, self.sites[number], user)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    async def _work(self, site: Site, user: User) -> None:
        """One request after the other."""
        while True:
            length, made = self.rng.randint(10, LENGTH), 0

            def tokens_made() -> int:
                return made  # noqa: B023 - it is called while this request runs

            site.waiting[user.name] += 1
            ticket = site.scheduler.submit(SlotRequest(user, "m"), tokens_made=tokens_made)
            async with ticket:
                site.waiting[user.name] -= 1
                self._started(site, user.name)
                while made < length:
                    step = min(10, length - made)
                    await trio.sleep(step / RATE)
                    made += step
                    self.served[user.name] += step

    def _started(self, site: Site, user: str) -> None:
        for other, count in site.waiting.items():
            if count and other != user:
                self.ahead = max(self.ahead, self.total(user) - self.total(other))

    async def _say(self, site: Site) -> None:
        """Exchange with the others each second; what is heard may be old."""
        await trio.sleep(self.rng.uniform(0, EVERY))
        while True:
            served = tuple(
                Served(*place, tokens) for place, tokens in site.scheduler.served().items()
            )
            site.said = trio.current_time(), Load(served=served)
            loads = [
                OtherLoad(one.number, one.said[1], trio.current_time() - one.said[0])
                for one in self.sites
                if one is not site
            ]
            heard = site.sharing.heard(loads)
            site.scheduler.served_elsewhere(
                [(one.model, one.priority, one.user, one.tokens) for one in heard],
                running_elsewhere(loads),
            )
            await trio.sleep(EVERY + self.rng.uniform(0, AGE / 2))


def bound(sites: Sites, site: int, weight: float) -> float:
    """How far ahead who is started at a server may be of another one who waits there.

    Both have weights of at least `weight`: a request per slot of that server, since what runs
    there is not over; and what the others serve until it is heard.
    """
    others = sum(one.slots.size for one in sites.sites) - sites.sites[site].slots.size
    unheard = others * RATE * (EVERY + AGE + AGE / 2)
    return (sites.sites[site].slots.size * LENGTH + unheard) / weight


@pytest.mark.parametrize("seed", range(3))
async def test_who_has_much_elsewhere_gets_less_here(autojump_clock: object, seed: int) -> None:
    ann, bob = User("ann"), User("bob")
    sites = Sites([4, 4], seed)
    await sites.run({ann: [0, 1], bob: [0]})
    # Bob gets all of the first server, since Ann has all of the second.
    assert sites.ahead <= bound(sites, 0, 1.0)
    assert abs(sites.total("ann") - sites.total("bob")) <= bound(sites, 0, 1.0)


async def test_without_reports_it_is_not_so(autojump_clock: object) -> None:
    sites = Sites([4, 4], 1, exchange=False)
    await sites.run({User("ann"): [0, 1], User("bob"): [0]})
    assert sites.ahead > 2 * bound(sites, 0, 1.0)
    assert sites.total("ann") > 2.5 * sites.total("bob")


@pytest.mark.parametrize("seed", range(3))
async def test_many_users_and_servers_keep_to_the_bound(autojump_clock: object, seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.randint(2, 4) for _ in range(3)]
    users = [User(name, weight=rng.choice((1.0, 2.0))) for name in ("ann", "bob", "eve")]
    sites = Sites(sizes, seed)
    # All have work everywhere, so that nobody is further ahead than CREDIT lets one be.
    await sites.run({user: [0, 1, 2] for user in users})
    assert sites.ahead <= max(bound(sites, n, 1.0) for n in range(3))
    totals = [sites.total(user.name) for user in users]
    assert max(totals) - min(totals) <= 2 * max(bound(sites, n, 1.0) for n in range(3))
    assert sum(sites.served.values()) > 0.95 * SECONDS * RATE * sum(sizes)  # no slot is idle


def test_what_was_served_elsewhere_is_a_bounded_debt_of_who_competes() -> None:
    desk = Desk(1)
    first = desk.submit(BOB)
    ann, bob = [desk.submit(ANN) for _ in range(2)], [desk.submit(BOB) for _ in range(2)]
    desk.scheduler.served_elsewhere([("", Priority.NORMAL, "ann", 1e9)], {})
    # She is behind by CREDIT at most: when he has had that, it is her turn.
    desk.remove(first, tokens=int(CREDIT) - 10)
    assert running(*ann, *bob) == [False, False, True, False]
    desk.remove(bob[0], tokens=20)
    assert running(*ann, *bob[1:]) == [True, False, False]


def test_what_was_served_elsewhere_is_no_debt_of_who_was_not_here() -> None:
    desk = Desk(1)
    first = desk.submit(BOB)
    desk.remove(desk.submit(ANN))
    desk.scheduler.served_elsewhere(
        [("", Priority.NORMAL, "ann", 1e9), ("x", Priority.LOW, "eve", 1.0)], {}
    )
    waits, ann = desk.submit(BOB), desk.submit(ANN)
    desk.remove(first, tokens=1)
    assert running(waits, ann) == [False, True]


def test_limits_of_users_hold_over_the_cluster() -> None:
    few, slow = User("ann", max_running=2), User("bob", tokens_per_minute=60.0)
    desk = Desk(9)
    first, second = desk.submit(few), desk.submit(slow)
    desk.scheduler.served_elsewhere([("", Priority.NORMAL, "bob", 90.0)], {"ann": 1})
    few_waits, slow_waits = desk.submit(few), desk.submit(slow)
    assert running(first, second, few_waits, slow_waits) == [True, True, False, False]
    assert few_waits.reason == "your limit of 2 at once"
    assert slow_waits.reason == "your limit of 60 tokens a minute"
    desk.wait(29.0)
    assert running(few_waits, slow_waits) == [False, False]
    desk.wait(2.0)  # 60 of 90 tokens were in the bucket
    assert running(few_waits, slow_waits) == [False, True]
    desk.scheduler.served_elsewhere([], {})
    assert running(few_waits) == [True]


def test_what_was_served_here_is_reported_with_what_runs() -> None:
    desk = Desk(2)
    first, second = desk.submit(ANN, model="m", prompt_tokens=3), desk.submit(BOB, model="m")
    desk.remove(first, tokens=7)
    desk.make(second, 5)
    third = desk.submit(ANN, model="m", priority=Priority.LOW)
    desk.make(third, 2)
    assert desk.scheduler.served() == {
        ("m", Priority.NORMAL, "ann"): 10,
        ("m", Priority.NORMAL, "bob"): 5,
        ("m", Priority.LOW, "ann"): 2,
    }
    assert desk.scheduler.running_of_users() == {"ann": 1, "bob": 1}
    desk.wait(5.0)
    # Of what runs no more only what has ended since then.
    assert desk.scheduler.served(since=1.0) == {
        ("m", Priority.NORMAL, "bob"): 5,
        ("m", Priority.LOW, "ann"): 2,
    }
    assert len(desk.scheduler.served(since=0.0)) == 3
    waits = [desk.submit(BOB, model="m") for _ in range(3)]
    assert desk.scheduler.outlook("m") == (3, None)
    assert desk.scheduler.outlook("n") == (0, None)
    for _ in waits:
        desk.wait(2.0)
        desk.remove(second)
        second = waits.pop(0)
    desk.submit(BOB, model="m")
    queued, wait = desk.scheduler.outlook("m")
    assert queued == 1 + len(waits)
    assert wait is not None
    assert wait == pytest.approx(2.0 * (queued + 1))
