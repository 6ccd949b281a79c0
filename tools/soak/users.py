"""The users of a soak and their requests: a Poisson process that follows from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Fewest and most tokens of an answer; as many of each order of magnitude.
SHORTEST, LONGEST = 16, 128
#: Of a hundred requests: those that continue a conversation, those over a new connection, and
#: those that are cancelled on the way.
_CONVERSATIONS, _NEW_CONNECTIONS, _CANCELLED = 30, 5, 5


@dataclass(frozen=True, slots=True)
class Person:
    """A user: their token, their weight, and their share of all requests."""

    name: str
    token: str
    weight: float
    share: float


PEOPLE = (
    Person("alice", "soak-alice", 2.0, 0.5),
    Person("bob", "soak-bob", 1.0, 0.3),
    Person("carol", "soak-carol", 1.0, 0.2),
)
#: The token of the admin who reads the server's status.
MONITOR = "soak-monitor"


def token_file() -> str:
    """The text of the server's token file."""
    lines = [f"{p.token} name={p.name} weight={p.weight:g}" for p in PEOPLE]
    return "\n".join([*lines, f"{MONITOR} name=monitor role=admin"]) + "\n"


def mean_tokens() -> float:
    """The mean length of an answer; lengths are log-uniform."""
    return (LONGEST - SHORTEST) / math.log(LONGEST / SHORTEST)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that will come.

    Attributes:
        at: seconds from the beginning.
        goes_on: it continues a conversation, if there is one.
        anew: over a new connection.
        cancelled: in the middle of its answer.
    """

    at: float
    person: Person
    tokens: int
    goes_on: bool
    anew: bool
    cancelled: bool


def arrivals(rng: random.Random, rate: float, seconds: float) -> Iterator[Arrival]:
    """A Poisson process of `rate` requests per second."""
    at = rng.expovariate(rate)
    while at < seconds:
        person = rng.choices(PEOPLE, [p.share for p in PEOPLE])[0]
        tokens = int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
        chances = (_CONVERSATIONS, _NEW_CONNECTIONS, _CANCELLED)
        yield Arrival(at, person, tokens, *(rng.random() * 100 < chance for chance in chances))
        at += rng.expovariate(rate)


def capacity(slots: int, rate: float, first_token: float) -> float:
    """Requests per second that so many slots sustain, at `rate` tokens per second each."""
    return slots / (first_token + (mean_tokens() - 1) / rate)


def by_person(first: dict[str, list[float]], people: Sequence[Person] = PEOPLE) -> list[str]:
    """The users with answers, in their order."""
    return [person.name for person in people if first.get(person.name)]
