"""Steady load: users whose requests come at random moments, of which each was drawn beforehand.

A request comes when it is due, however many others are under way (an open loop), so that a slow
server cannot hide what it makes others wait for. All of it follows from the seed.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

import llcuda_net
from llcuda_net.client import Client
from llcuda_net.client.stream import Piece
from llcuda_net.errors import LlcudaError
from tools.synthetic.tokens import generation

#: Fewest and most tokens of an answer; as many of each order of magnitude.
SHORTEST, LONGEST = 16, 128
#: Of a hundred requests: those that go on with a conversation, those over a new connection, and
#: those that are cancelled on the way.
_CONVERSATIONS, _NEW_CONNECTIONS, _CANCELLED = 30, 5, 5
#: Characters from which on a conversation is not gone on with.
_LONGEST_PROMPT = 2000
#: Seconds for a request: a bound for hangs.
_PATIENCE = 120.0
#: Errors that are kept word by word.
_MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class Person:
    """A user: their token, and their share of all requests."""

    name: str
    token: str
    weight: float
    share: float


PEOPLE = (
    Person("alice", "soak-alice", 2.0, 0.5),
    Person("bob", "soak-bob", 1.0, 0.3),
    Person("carol", "soak-carol", 1.0, 0.2),
)
#: Who looks at the server; sees everybody's.
MONITOR = "soak-monitor"


def token_file() -> str:
    """The server's token file."""
    lines = [f"{p.token} name={p.name} weight={p.weight:g}" for p in PEOPLE]
    return "\n".join([*lines, f"{MONITOR} name=monitor role=admin"]) + "\n"


def mean_tokens() -> float:
    """Of an answer: of log-uniform lengths."""
    return (LONGEST - SHORTEST) / math.log(LONGEST / SHORTEST)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that will come."""

    at: float
    person: Person
    tokens: int
    goes_on: bool
    anew: bool
    cancelled: bool


def arrivals(rng: random.Random, rate: float, seconds: float) -> Iterator[Arrival]:
    """A Poisson process: `rate` requests a second."""
    at = rng.expovariate(rate)
    while at < seconds:
        person = rng.choices(PEOPLE, [p.share for p in PEOPLE])[0]
        tokens = int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
        chances = (_CONVERSATIONS, _NEW_CONNECTIONS, _CANCELLED)
        yield Arrival(at, person, tokens, *(rng.random() * 100 < chance for chance in chances))
        at += rng.expovariate(rate)


class Window:
    """What was measured since the last sample: seconds."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.intervals: list[float] = []
        self.requests = 0
        self.tokens = 0


class Load:
    """Makes the requests, measures, and compares each answer with what it must be.

    Attributes:
        window: of now; whoever takes a sample puts a new one there.
        counts: requests, by how they ended.
        first: seconds to the first token, by user.
        errors: the first that there were.
        running: requests under way.
    """

    def __init__(self, address: str, connections: int) -> None:
        self.window = Window()
        self.counts: Counter[str] = Counter()
        self.first: defaultdict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []
        self.running = 0
        self._address = address
        self._connections = connections
        self._talks: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=16))
        self._number = 0

    async def run(self, wanted: Iterator[Arrival]) -> None:
        """Make all requests, and return when they are over."""
        async with trio.open_nursery() as connections:
            clients: dict[str, list[Client]] = {}
            for person in PEOPLE:
                clients[person.name] = [
                    await connections.start(self._connection, person)
                    for _ in range(self._connections)
                ]
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for number, arrival in enumerate(wanted):
                    await trio.sleep_until(began + arrival.at)
                    own = clients[arrival.person.name]
                    due = began + arrival.at
                    nursery.start_soon(self._request, own[number % len(own)], arrival, due)
            connections.cancel_scope.cancel()

    async def _connection(
        self, person: Person, *, task_status: trio.TaskStatus[Client] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with llcuda_net.connect(self._address, token=person.token) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def _request(self, client: Client, arrival: Arrival, due: float) -> None:
        self.running += 1
        self.counts["requests"] += 1
        self.window.requests += 1
        token = arrival.person.token
        try:
            with trio.fail_after(_PATIENCE):
                if arrival.anew:
                    async with llcuda_net.connect(self._address, token=token) as other:
                        await self._ask(other, arrival, due)
                else:
                    await self._ask(client, arrival, due)
        except LlcudaError as error:
            self._wrong(f"{arrival.person.name}: {error}")
        except trio.TooSlowError:
            self._wrong(f"{arrival.person.name}: not over within {_PATIENCE:g} s")
        finally:
            self.running -= 1

    def _wrong(self, what: str) -> None:
        self.counts["failed"] += 1
        if len(self.errors) < _MOST_TOLD:
            self.errors.append(what)

    async def _ask(self, client: Client, arrival: Arrival, due: float) -> None:
        prompt = self._prompt(arrival)
        last: float | None = None
        left = arrival.tokens // 2 if arrival.cancelled else -1
        async with client.generate(raw=prompt, n_predict=arrival.tokens, temperature=0) as stream:
            async for event in stream.events():
                if not isinstance(event, Piece):
                    continue
                now = trio.current_time()
                if last is None:
                    self.window.first.append(now - due)
                    self.first[arrival.person.name].append(now - due)
                else:
                    self.window.intervals.append(now - last)
                last = now
                self.window.tokens += 1
                left -= 1
                if left == 0:
                    await stream.cancel()
            result = stream.result
        self.counts[result.reason] += 1
        text = generation(prompt, arrival.tokens)
        if arrival.cancelled and result.reason == "cancelled":
            text = text[: len(result.text)]
        if result.text != text:
            self._wrong(f"{arrival.person.name}: the answer {result.id} is not what it must be")
        elif len(prompt) + len(text) < _LONGEST_PROMPT and not arrival.cancelled:
            self._talks[arrival.person.name].append(prompt + text)

    def _prompt(self, arrival: Arrival) -> str:
        """A new one, or an earlier answer and a further question."""
        self._number += 1
        talks = self._talks[arrival.person.name]
        if arrival.goes_on and talks:
            return f"{talks.popleft()}\nand number {self._number}?"
        return f"{arrival.person.name} asks number {self._number}: "


def capacity(slots: int, rate: float, first_token: float) -> float:
    """Requests a second that so many slots sustain, at `rate` tokens a second each."""
    return slots / (first_token + (mean_tokens() - 1) / rate)


def by_person(first: dict[str, list[float]], people: Sequence[Person] = PEOPLE) -> list[str]:
    """The users that had answers, in their order."""
    return [person.name for person in people if first.get(person.name)]
