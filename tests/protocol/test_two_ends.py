"""A client and a server talk, doing at random what `send` allows: neither ever refuses the other.

Bytes travel in both directions with any delay and in any chunks, so frames cross on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Channel,
    Connection,
    ConnectionClosed,
    Credit,
    Delete,
    Deleted,
    Done,
    Durable,
    Embed,
    Error,
    Facts,
    Frame,
    Generate,
    GoAway,
    Hello,
    Hits,
    ListGenerations,
    Listing,
    LocalProtocolError,
    Ping,
    Queue,
    Report,
    Role,
    Search,
    Splice,
    Status,
    Tokens,
    Upload,
    Vectors,
    Welcome,
)
from llcuda_protocol.kinds import HEADER, MAX_CREDIT, MAX_SEQUENCE, Kind
from tests.support.protocol.any_frame import FROM, tokens, vectors

ALL = 1 << 30
PICK = st.integers(0, 1000)
CREDIT = st.integers(0, 200) | st.just(MAX_CREDIT)


class TwoEnds(RuleBasedStateMachine):
    """Both ends, and what is on the way to each."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        self.wires = {role: bytearray() for role in Role}  # by who sends
        self.ended = dict.fromkeys(Role, False)
        self.sent: dict[Role, list[Frame]] = {role: [] for role in Role}
        self.received: dict[Role, list[Any]] = {role: [] for role in Role}
        self.last = 0  # stream that the client named
        self.sequence: dict[int, int] = {}  # by stream, of the server's next piece

    def stream(self, role: Role, pick: int) -> int:
        """A stream that is open at this end or, seldom, any that has been."""
        seen = range(1, self.last + 1)
        some = [n for n in seen if self.ends[role].is_open(n)] if pick % 8 else list(seen)
        return some[pick % len(some)] if some else 1

    def say(self, role: Role, frame: Frame) -> bool:
        end = self.ends[role]
        before = (end.state, end.open_streams, end.credit(getattr(frame, "stream", 0)))
        try:
            data = end.send(frame)
        except LocalProtocolError:
            assert before == (end.state, end.open_streams, end.credit(getattr(frame, "stream", 0)))
            return False
        if not self.ended[role]:
            self.wires[role] += data
            self.sent[role].append(frame)
        return True

    @initialize(
        max_streams=st.integers(3, 5),
        max_frame=st.sampled_from([16_384, 1 << 20]),
        requests=st.lists(st.tuples(CREDIT, st.sampled_from("ggaesflud")), min_size=3, max_size=5),
        accepted=st.integers(1, 3),
    )
    def begin(
        self, max_streams: int, max_frame: int, requests: list[tuple[int, str]], accepted: int
    ) -> None:
        """Shake hands, and open some streams."""
        assert self.say(Role.CLIENT, Hello([1], max_frame, 1))
        self.carry(Role.CLIENT, ALL)
        assert self.say(Role.SERVER, Welcome(1, max_frame, max_streams))
        self.carry(Role.SERVER, ALL)
        assert self.ends[Role.CLIENT].state == self.ends[Role.SERVER].state == "open"
        for credit, which in requests:
            self.request(credit, which, 0)
        self.carry(Role.CLIENT, ALL)
        for number in range(1, accepted + 1):
            self.say(Role.SERVER, Accepted(number, "g"))

    @rule(role=st.sampled_from(Role), count=st.integers(1, 60) | st.just(ALL))
    def carry(self, role: Role, count: int) -> None:
        """Some of what `role` sent arrives; RemoteProtocolError would fail the test."""
        other = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        wire, end = self.wires[role], self.ends[other]
        if wire:
            end.receive_data(bytes(wire[:count]))
            del wire[:count]
        elif self.ended[role]:
            end.receive_data(b"")
        while (event := end.next_event()) is not None:
            if isinstance(event, ConnectionClosed):
                break
            self.received[other].append(event)

    @rule(credit=CREDIT, which=st.sampled_from("ggaesflud"), skip=st.integers(0, 2))
    def request(self, credit: int, which: str, skip: int) -> None:
        self.last += 1 + skip // 2
        frame: Frame = Status(self.last)
        if which == "g":
            frame = Generate(self.last, credit, prompt="a")
        elif which == "a":
            # From the greatest number, or near the beginning.
            first = MAX_SEQUENCE if credit == MAX_CREDIT else credit
            self.sequence[self.last] = first
            frame = Attach(self.last, "g", credit, first)
        elif which == "e":
            frame = Embed(self.last, ["a"])
        elif which == "f":
            frame = Search(self.last, "a")
        elif which == "l":
            frame = ListGenerations(self.last)
        elif which == "u":
            frame = Upload(self.last, b"u", more=True)
        elif which == "d":
            frame = Delete(self.last, "g")
        self.say(Role.CLIENT, frame)

    @rule(pick=PICK, add=CREDIT.filter(bool))
    def give_credit(self, pick: int, add: int) -> None:
        self.say(Role.CLIENT, Credit(self.stream(Role.CLIENT, pick), add))

    @rule(pick=PICK, detach=st.booleans())
    def cancel(self, pick: int, detach: bool) -> None:
        self.say(Role.CLIENT, Cancel(self.stream(Role.CLIENT, pick), detach))

    @rule(pick=PICK)
    def accept(self, pick: int) -> None:
        self.say(Role.SERVER, Accepted(self.stream(Role.SERVER, pick), "g"))

    @rule(pick=PICK, frame=vectors())
    def stream_vectors(self, pick: int, frame: Vectors) -> None:
        number = self.stream(Role.SERVER, pick)
        first = self.sequence.get(number, 0)
        if self.say(Role.SERVER, replace(frame, stream=number, first=first)):
            self.sequence[number] = first + len(frame.vectors)

    @rule(pick=PICK)
    def tell_hits(self, pick: int) -> None:
        number = self.stream(Role.SERVER, pick)
        self.say(Role.SERVER, Hits(number, [{"id": "g", "score": 0.5, "created": 1.0}]))

    @rule(pick=PICK)
    def tell_entries(self, pick: int) -> None:
        number = self.stream(Role.SERVER, pick)
        self.say(Role.SERVER, Listing(number, [{"id": "g", "state": "done", "created": 1.0}]))

    @rule(pick=PICK, more=st.booleans())
    def upload(self, pick: int, more: bool) -> None:
        self.say(Role.CLIENT, Upload(self.stream(Role.CLIENT, pick), b"v", more))

    @rule(pick=PICK)
    def switch(self, pick: int) -> None:
        self.say(Role.SERVER, Channel(self.stream(Role.SERVER, pick), 1, "tool_call", 0, "c", "f"))

    @rule(pick=PICK, more=st.booleans())
    def tell_facts(self, pick: int, more: bool) -> None:
        self.say(Role.SERVER, Facts(self.stream(Role.SERVER, pick), b"f", more))

    @rule(pick=PICK, well=st.booleans())
    def finish(self, pick: int, well: bool) -> None:
        number = self.stream(Role.SERVER, pick)
        if not (well and self.say(Role.SERVER, Done(number, "stop"))):
            reply = Report(number, {}) if pick % 2 else Deleted(number, "g")
            self.say(Role.SERVER, reply if well else Error(number, "internal", ""))

    @rule(pick=PICK, frame=tokens(st.just(1), st.just(0)))
    def stream_tokens(self, pick: int, frame: Tokens) -> None:
        """As many pieces as fit, from where the stream stands."""
        frame.stream = self.stream(Role.SERVER, pick)
        frame.first = self.sequence.get(frame.stream, 0)
        try:
            data, count = self.ends[Role.SERVER].send_tokens(frame)
        except LocalProtocolError:
            return
        assert (count == 0) == (data == b"")
        self.sequence[frame.stream] = frame.first + count
        if count and not self.ended[Role.SERVER]:
            frame.pieces = frame.pieces[:count]
            frame.ids = None if frame.ids is None else frame.ids[:count]
            frame.logprobs = None if frame.logprobs is None else frame.logprobs[:count]
            self.wires[Role.SERVER] += data
            self.sent[Role.SERVER].append(frame)

    @rule(role=st.sampled_from(Role), pick=PICK, data=st.data())
    def say_anything(self, role: Role, pick: int, data: st.DataObject) -> None:
        """Whatever `send` lets out; what ends the connection is left for `finally_`."""
        frame: Any = data.draw(FROM[role])
        if isinstance(frame, GoAway) or (isinstance(frame, Error) and frame.stream == 0):
            return
        if hasattr(frame, "stream"):
            frame = replace(frame, stream=self.stream(role, pick))
        self.say(role, frame)

    @precondition(lambda self: self.last > 8)
    @rule(role=st.sampled_from(Role), how=st.sampled_from(["go_away", "error", "end"]))
    def finally_(self, role: Role, how: str) -> None:
        if how == "end":
            self.ended[role] = True
        elif how == "error":
            self.say(role, Error(0, "internal", ""))
        else:
            self.say(Role.SERVER, GoAway(1.0))

    @invariant()
    def bounded(self) -> None:
        for end in self.ends.values():
            assert end.buffered <= HEADER + end.limits.max_frame
            assert end.open_streams <= 5

    @invariant()
    def in_order(self) -> None:
        """What arrived is what was sent, in order, but for late frames, which are dropped."""
        for role in Role:
            other = Role.SERVER if role is Role.CLIENT else Role.CLIENT
            sent = iter(self.sent[role])
            assert all(any(event == frame for frame in sent) for event in self.received[other])


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def talk(seed: int, steps: int = 400) -> TwoEnds:
    """A long talk, by a seed: deeper than Hypothesis goes, though it cannot be shrunk."""
    chance = Random(seed)
    ends = TwoEnds()

    def credit() -> int:
        return chance.choice([0, 1, 30, 100, 1000, MAX_CREDIT])

    def pieces() -> Tokens:
        some = ["x" * chance.randrange(20) for _ in range(chance.randint(1, 8))]
        return Tokens(1, 0, some, [5] * len(some) if chance.random() < 0.3 else None)

    actions: list[tuple[int, Callable[[], object]]] = [
        (8, lambda: ends.request(credit(), chance.choice("gggaesflud"), chance.randrange(3))),
        (8, lambda: ends.accept(chance.randrange(99))),
        (8, lambda: ends.give_credit(chance.randrange(99), credit() or 1)),
        (3, lambda: ends.cancel(chance.randrange(99), chance.random() < 0.5)),
        (16, lambda: ends.stream_tokens(chance.randrange(99), pieces())),
        (2, lambda: ends.stream_vectors(chance.randrange(99), Vectors(1, 0, [b"1234"]))),
        (4, lambda: ends.tell_hits(chance.randrange(99))),
        (4, lambda: ends.tell_entries(chance.randrange(99))),
        (6, lambda: ends.upload(chance.randrange(99), chance.random() < 0.8)),
        (4, lambda: ends.switch(chance.randrange(99))),
        (4, lambda: ends.tell_facts(chance.randrange(99), chance.random() < 0.5)),
        (4, lambda: ends.finish(chance.randrange(99), chance.random() < 0.8)),
        (2, lambda: ends.say(chance.choice(list(Role)), Ping(b"p"))),
        (2, lambda: ends.say(Role.SERVER, Queue(ends.stream(Role.SERVER, chance.randrange(9)), 1))),
        (
            2,
            lambda: ends.say(
                Role.SERVER, Durable(ends.stream(Role.SERVER, chance.randrange(9)), 1)
            ),
        ),
        (
            2,
            lambda: ends.say(Role.SERVER, Splice(ends.stream(Role.SERVER, chance.randrange(9)), 1)),
        ),
        (25, lambda: ends.carry(Role.CLIENT, chance.choice([1, 5, 40, ALL]))),
        (25, lambda: ends.carry(Role.SERVER, chance.choice([1, 5, 40, ALL]))),
    ]
    ends.begin(chance.randint(3, 5), 16_384, [(100, "g")] * 3, 2)
    for step in chance.choices(actions, [weight for weight, _ in actions], k=steps):
        step[1]()
        ends.bounded()
    if chance.random() < 0.5:
        ends.say(Role.SERVER, GoAway(1.0))
    for _ in range(3):
        ends.finish(1, well=True)
    for role in Role:
        ends.carry(role, ALL)
    ends.in_order()
    return ends


def test_long_talks() -> None:
    heard: Counter[Kind] = Counter()
    dropped = 0
    for seed in range(60):
        ends = talk(seed)
        heard.update(frame.KIND for role in Role for frame in ends.received[role])
        # All was delivered, so what is missing crossed the end of its stream.
        late = Counter(f.KIND for f in ends.sent[Role.CLIENT])
        late.subtract(f.KIND for f in ends.received[Role.SERVER])
        assert set(+late) <= {Kind.CREDIT, Kind.CANCEL, Kind.UPLOAD}
        dropped += late.total()
        assert ends.sent[Role.SERVER] == ends.received[Role.CLIENT]
    assert set(heard) == set(Kind) - {Kind.PONG}
    assert min(heard.values()) >= 10
    assert dropped >= 20
