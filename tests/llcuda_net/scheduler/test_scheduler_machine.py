"""Whatever comes in whatever order: every ticket ends once, no limit is broken, no slot is idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llcuda_net.config.users import Priority, User
from llcuda_net.errors import RequestError
from llcuda_net.scheduler.scheduler import Scheduler, SlotRequest, Ticket
from llcuda_net.scheduler.wait_order import Rank, forecast
from llcuda_protocol import ErrorCode
from tests.support.scheduler_slots import Clock

RATE = 600.0
USERS = [
    User("plain"),
    User("heavy", weight=4.0),
    User("low", priority=Priority.LOW),
    User("one", max_running=1),
    User("few", max_running=2, max_queued=2),
    User("slow", tokens_per_minute=RATE),
]
MAX_QUEUE = 6


class Held:
    def __init__(self, machine: Queueing, upstream: int) -> None:
        self.machine, self.upstream, self.released = machine, upstream, False

    def release(self) -> None:
        assert not self.released
        self.released = True
        self.machine.busy[self.upstream] -= 1


class Queueing(RuleBasedStateMachine):
    """Against counts kept beside it.

    Three upstreams: two of model x, of which the second takes all keys, and one of model y.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.scheduler = Scheduler(self.place, MAX_QUEUE, ageing=30.0, clock=self.clock)
        self.serves = [("x", {"small"}), ("x", {"small", "big"}), ("y", {"small", "big"})]
        self.slots = [1, 2, 1]
        self.busy = [0, 0, 0]
        self.waiting: list[Ticket] = []
        self.running: list[Ticket] = []
        self.ended: list[Ticket] = []
        self.told: dict[Ticket, int] = {}
        self.made: Counter[Ticket] = Counter()
        self.served: Counter[str] = Counter()
        self.bucket = RATE

    def place(self, ticket: Ticket) -> Held | None:
        for upstream, (model, keys) in enumerate(self.serves):
            if (
                model == ticket.slot_request.model
                and ticket.slot_request.key in keys
                and self.busy[upstream] < self.slots[upstream]
            ):
                self.busy[upstream] += 1
                return Held(self, upstream)
        return None

    def follow(self, act: Callable[[], None] = lambda: None) -> None:
        """Do something, and see who got a slot by it."""
        act()
        for quota in self.scheduler._quotas.values():
            quota.refilled_at(self.clock.now)  # what is used is charged when it is looked at
        for ticket in self.waiting.copy():
            if ticket.granted.is_set():
                self.waiting.remove(ticket)
                self.running.append(ticket)
                if not ticket.requeued:
                    self.use(ticket, ticket.slot_request.prompt_tokens)

    def use(self, ticket: Ticket, tokens: int) -> None:
        self.served[ticket.slot_request.user.name] += tokens
        if ticket.slot_request.user.tokens_per_minute is not None:
            self.bucket -= tokens

    def may(self, ticket: Ticket) -> bool | None:
        """Whether its user may begin it; None where that is a matter of rounding."""
        user = ticket.slot_request.user
        running = sum(other.slot_request.user is user for other in self.running)
        if user.max_running is not None and running >= user.max_running:
            return False
        if user.tokens_per_minute is None or ticket.requeued:
            return True
        return None if abs(self.bucket) < 1e-6 else self.bucket >= 0

    @rule(
        user=st.sampled_from(USERS),
        model=st.sampled_from("xy"),
        key=st.sampled_from(["small", "big"]),
        priority=st.sampled_from(Priority),
        prompt=st.integers(0, 300),
        most=st.none() | st.integers(0, 300),
        deadline=st.none() | st.floats(0.0, 100.0),
        always=st.booleans(),
    )
    def submit(
        self,
        user: User,
        model: str,
        key: str,
        priority: Priority,
        prompt: int,
        most: int | None,
        deadline: float | None,
        always: bool,
    ) -> None:
        late = self.clock.now + deadline if deadline is not None else float("inf")
        slot_request = SlotRequest(user, model, key, priority, late, prompt, most)
        own = [t for t in self.waiting if t.slot_request.user is user and not t.requeued]
        all_waiting = [t for t in self.waiting if not t.requeued]
        ticket, code = self.submitted(slot_request, always)
        if ticket is None:
            assert not always
            assert code == ErrorCode.OVERLOADED
            full = len(all_waiting) >= MAX_QUEUE and own
            own_full = user.max_queued is not None and len(own) >= user.max_queued
            assert full or own_full or deadline is not None
            self.follow()
            return
        self.told[ticket] = ticket.position
        self.waiting.append(ticket)
        self.follow()
        if ticket in self.waiting and not always:
            assert len(all_waiting) < MAX_QUEUE or not own
            assert user.max_queued is None or len(own) < user.max_queued

    def submitted(self, slot_request: SlotRequest, always: bool) -> tuple[Ticket | None, str]:
        made: list[Ticket] = []
        try:
            ticket = self.scheduler.submit(
                slot_request,
                always=always,
                on_move=lambda ticket: self.told.__setitem__(ticket, ticket.position),
                tokens_made=lambda: sum(self.made[ticket] for ticket in made),
            )
        except RequestError as error:
            return None, error.code
        made.append(ticket)
        return ticket, ""

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end(self.running, data)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.end(self.waiting, data)

    def end(self, among: list[Ticket], data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(among))
        among.remove(ticket)
        self.ended.append(ticket)
        self.follow(lambda: self.scheduler.remove(ticket))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.ended))
        self.scheduler.remove(ticket)
        self.scheduler.requeue(ticket, ticket.slot_request)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), down=st.booleans())
    def lose(self, data: st.DataObject, down: bool) -> None:
        """The slot is lost, perhaps with all of its upstream."""
        ticket = data.draw(st.sampled_from(self.running))
        lease, granted = ticket.lease, ticket.granted
        assert isinstance(lease, Held)
        if down:
            self.slots[lease.upstream] = 0
        self.running.remove(ticket)
        self.waiting.append(ticket)
        self.follow(lambda: self.scheduler.requeue(ticket, ticket.slot_request))
        assert lease.released
        assert ticket.granted is not granted
        assert ticket.requeued

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 900))
    def generate(self, data: st.DataObject, tokens: int) -> None:
        ticket = data.draw(st.sampled_from(self.running))
        self.made[ticket] += tokens
        self.use(ticket, tokens)
        self.follow(self.scheduler.dispatch)

    @rule(upstream=st.integers(0, 2), slots=st.integers(0, 3))
    def resize(self, upstream: int, slots: int) -> None:
        self.slots[upstream] = slots
        self.follow(self.scheduler.dispatch)

    @rule(seconds=st.floats(0.0, 60.0))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.bucket = min(RATE, self.bucket + seconds * RATE / 60)
        self.follow(self.scheduler.dispatch)
        for ticket in self.waiting.copy():  # their holders see it, too, and remove
            if ticket.slot_request.deadline < self.clock.now and not ticket.requeued:
                self.waiting.remove(ticket)
                self.ended.append(ticket)
                self.scheduler.remove(ticket)
        self.follow()

    @invariant()
    def all_is_counted(self) -> None:
        assert self.scheduler.running == len(self.running) == sum(self.busy)
        assert self.scheduler.queued == len(self.waiting)
        assert self.scheduler.idle == (not self.running and not self.waiting)
        assert all(ticket.lease is not None and ticket.granted.is_set() for ticket in self.running)
        assert not any(ticket.lease or ticket.granted.is_set() for ticket in self.waiting)
        assert all(ticket.lease is None for ticket in self.ended)
        running, queued = (
            Counter(ticket.slot_request.user.name for ticket in tickets)
            for tickets in (self.running, self.waiting)
        )
        for load in self.scheduler.users():
            assert (load.running, load.queued) == (running[load.name], queued[load.name])
            assert load.served == self.served[load.name]

    @invariant()
    def no_limit_is_broken(self) -> None:
        for user in USERS:
            running = sum(ticket.slot_request.user is user for ticket in self.running)
            assert user.max_running is None or running <= user.max_running

    @invariant()
    def no_slot_is_idle_that_somebody_may_have(self) -> None:
        for ticket in self.waiting:
            if self.may(ticket) and ticket.slot_request.deadline >= self.clock.now:
                held = self.place(ticket)
                assert held is None, ticket.slot_request

    @invariant()
    def it_is_told_where_they_stand(self) -> None:
        reporter = self.scheduler._reporter
        order = self.scheduler.waiting()
        assert Counter(order) == Counter(self.waiting)
        assert [t for t in order if t.requeued] == order[: sum(t.requeued for t in order)]
        places: Counter[str] = Counter()
        for ticket in order:
            places[ticket.slot_request.model] += 1
            assert reporter.order.position(ticket) == places[ticket.slot_request.model]
        assert all(self.told[ticket] == 0 for ticket in self.running)
        assert all(ticket.position > 0 for ticket in self.waiting)

    @rule()
    def report(self) -> None:
        """Then all stand where the ranks of all say, put in order."""
        for _ in self.scheduler._reporter.report(self.clock):
            pass
        queue = self.scheduler._queue
        by_model: dict[str, list[Rank]] = {}
        for ticket in queue:
            by_model.setdefault(ticket.slot_request.model, []).append(forecast(queue, ticket, {}))
        for ticket in queue:
            ranks = sorted(by_model[ticket.slot_request.model])
            assert ticket.position == ranks.index(forecast(queue, ticket, {})) + 1
            assert self.told[ticket] == ticket.position  # of so few each is told exactly

    @invariant()
    def who_is_next_is_the_lowest_of_all(self) -> None:
        """However it is found; and only flows of users who run something are looked at for it."""
        now = self.clock.now
        self.scheduler.dispatch()
        for one in (one for p in Priority for one in self.scheduler._queue.classes(p)):
            assert all(flow.quota.running for flow in one._live)
            flows = {*one._live, *(entry.flow for entry in one._resting)}
            for entries in one._settled.values():
                assert entries == sorted(entries)
                flows.update(entry.flow for entry in entries)
            assert flows == set(one.waiting.values())
            for keys in (["small"], ["big"], ["small", "big"]):
                kinds = [(model, key) for model in "xy" for key in keys]
                heads = [(flow, flow.head(kinds)) for flow in one.waiting.values()]
                may = [
                    (flow.rank(ticket), ticket, flow)
                    for flow, ticket in heads
                    if ticket is not None and flow.quota.may_start(now)
                ]
                assert one.head(kinds, now) == min(may, default=None)

    @invariant()
    def nothing_is_kept_of_what_is_over(self) -> None:
        if self.scheduler.idle:
            assert not self.scheduler._queue._models
            assert not self.scheduler._queue.kinds
            assert not self.scheduler._reporter.order._lines
            assert not self.scheduler._reporter.order._ranks
            assert not any(quota.running for quota in self.scheduler._quotas.values())


class LongQueueing(Queueing):
    """The same, for longer."""


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLongQueueing = pytest.mark.slow(LongQueueing.TestCase)
TestLongQueueing.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
