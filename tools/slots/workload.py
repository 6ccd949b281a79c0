"""What the streams ask: one prompt, distinct prompts, or conversations with a shared beginning."""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

#: Kinds of workloads, by name.
KINDS = ("distinct", "one", "conversations")
#: Words of prompts: consonants and vowels in turn, as the vocabulary of tools/random_model.py.
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"


class Sizes(NamedTuple):
    """How large requests are.

    Attributes:
        prompt: words of a prompt, and of a turn of a conversation.
        system: words with which all conversations begin.
        answer: tokens of an answer in the mean; half to one and a half times as many are asked for.
        longest: characters of a prompt at most: a conversation that is longer begins anew.
    """

    prompt: int = 40
    system: int = 300
    answer: int = 64
    longest: int = 12_000


class Asked(NamedTuple):
    """One request."""

    prompt: str
    tokens: int


class Workload(Protocol):
    """Gives each stream its next request."""

    def next(self, stream: int) -> Asked:
        """The next request of a stream."""

    def answered(self, stream: int, text: str) -> None:
        """Its last one was answered."""


def workload(kind: str, streams: int, sizes: Sizes, seed: int) -> Workload:
    """A workload by its kind; equal seeds ask the same."""
    if kind == "conversations":
        return Conversations(streams, sizes, seed)
    return Prompts(sizes, seed, same=kind == "one")


class Prompts:
    """Prompts that nothing connects, or always the same one."""

    def __init__(self, sizes: Sizes, seed: int, *, same: bool) -> None:
        self._chance = random.Random(seed)
        self._sizes = sizes
        self._only = words(self._chance, sizes.prompt) if same else None

    def next(self, stream: int) -> Asked:
        """See Workload."""
        prompt = self._only or words(self._chance, self._sizes.prompt)
        return Asked(prompt, length(self._chance, self._sizes))

    def answered(self, stream: int, text: str) -> None:
        """See Workload."""


class Conversations:
    """Each stream goes on with two conversations in turn; all begin with the same instructions.

    So as many again as there are streams have their slots' caches and no slot at work.
    """

    def __init__(self, streams: int, sizes: Sizes, seed: int) -> None:
        self._chance = random.Random(seed)
        self._sizes = sizes
        self._system = words(self._chance, sizes.system)
        self._said = [[self._system, self._system] for _ in range(streams)]
        self._turn = [0] * streams

    def next(self, stream: int) -> Asked:
        """See Workload."""
        turn, said = self._turn[stream], self._said[stream]
        if len(said[turn]) > self._sizes.longest:
            said[turn] = self._system
        said[turn] += "\n\nUser:" + words(self._chance, self._sizes.prompt) + "\nAssistant:"
        return Asked(said[turn], length(self._chance, self._sizes))

    def answered(self, stream: int, text: str) -> None:
        """See Workload."""
        turn = self._turn[stream]
        self._said[stream][turn] += text
        self._turn[stream] = 1 - turn


def words(chance: random.Random, count: int) -> str:
    """So many words, each with a space before it."""
    pairs = [chance.choice(CONSONANTS) + chance.choice(VOWELS) for _ in range(3 * count)]
    return "".join(" " + "".join(pairs[at : at + 3]) for at in range(0, 3 * count, 3))


def length(chance: random.Random, sizes: Sizes) -> int:
    """Tokens of the next answer."""
    return max(2, round(sizes.answer * chance.uniform(0.5, 1.5)))
