"""Texts and results as stores have them: words of Zipf's distribution, lengths that vary much."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from llcuda_net.storage.records import Result, TokenLog, hash_of

#: Words that there are. The commonest are in nearly every text, most of them in next to none.
VOCABULARY = 50_000
#: Zipf's exponent, and what is added to the rank (Mandelbrot): as in English prose.
_EXPONENT, _SHIFT = 1.07, 2.7
#: The commonest words; the others are made of syllables.
COMMON = """
    the of and to in is that for it as was with be by on not he his but at are this have from or had
    an they which one you were all her she there would their we him been has when who will no more
    if out so said what up its about into than them can only other time new some could
"""
#: Median words of a prompt and of an answer, the spread of their logarithm, and the most.
PROMPT, ANSWER, SPREAD, LONGEST = 40, 120, 0.8, 2000
OWNERS, MODELS = 20, 8
#: How results end, and how often.
STATES = {"done": 0.92, "failed": 0.04, "cancelled": 0.03, "interrupted": 0.01}
#: Nanoseconds between the beginnings of two generations on average, and when the first one began.
_BETWEEN, _START = 20 * 10**9, 1_700_000_000 * 10**9
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
#: Results whose numbers are drawn at once.
_BATCH = 1000


def vocabulary() -> list[str]:
    """All words, the commonest first."""
    syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
    words = COMMON.split()
    seen = set(words)
    number = 0
    while len(words) < VOCABULARY:
        # A multiplier prime to every power of the base: neighbours in rank share no beginning.
        rest, word = number * 7919 + 100_003, ""
        number += 1
        while rest:
            rest, place = divmod(rest, len(syllables))
            word += syllables[place]
        if word not in seen:
            seen.add(word)
            words.append(word)
    return words


def results(count: int, seed: int = 0, first: int = 0) -> Iterator[Result]:
    """Results in the order in which they end; the same ones for the same arguments.

    Generations run beside each other, so they are not quite in the order in which they began.
    """
    words = vocabulary()
    pieces = [f" {word}" for word in words]
    weights = np.cumsum((np.arange(len(words)) + 1 + _SHIFT) ** -_EXPONENT)
    weights /= weights[-1]
    owners = _shares(OWNERS)
    models = _shares(MODELS)
    states, chances = list(STATES), np.cumsum(list(STATES.values()))
    size = _BATCH
    for begin in range(first // _BATCH * _BATCH, first + count, _BATCH):
        rng = np.random.default_rng((seed, begin))
        lengths = [
            np.minimum(LONGEST, rng.lognormal(math.log(median), SPREAD, size).astype(int) + 1)
            for median in (PROMPT, ANSWER)
        ]
        picked = [np.searchsorted(weights, rng.random(int(each.sum()))) for each in lengths]
        ends = [np.cumsum(each) for each in lengths]
        owner = np.searchsorted(owners, rng.random(size)).tolist()
        model = np.searchsorted(models, rng.random(size)).tolist()
        state = np.searchsorted(chances, rng.random(size)).tolist()
        low = rng.integers(1 << 62, size=(2, size)).tolist()
        started = rng.integers(-3 * _BETWEEN, 3 * _BETWEEN, size).tolist()
        for number in range(max(0, first - begin), min(size, first + count - begin)):
            prompt, answer = (
                picked[part][ends[part][number] - lengths[part][number] : ends[part][number]]
                for part in (0, 1)
            )
            ids = answer.tolist()
            finished = _START + (begin + number) * _BETWEEN
            created = finished - 4 * _BETWEEN + started[number]
            name = states[state[number]]
            yield Result(
                id=_uuid(created, low[0][number], low[1][number]),
                state=name,
                created=created,
                finished=finished,
                request={
                    "prompt": " ".join(words[i] for i in prompt.tolist()),
                    "params": {"temperature": 0.0, "seed": begin + number, "n_predict": 2048},
                },
                log=TokenLog([pieces[i] for i in ids], ids),
                reason="stop" if name == "done" else name,
                usage={"completion_tokens": len(ids), "prompt_tokens": len(prompt)},
                timings={"queue": 0.1, "connect": 0.5, "first_token": 12.0, "total": 900.0},
                model={"name": f"model-{model[number]}", "size": 3_000_000, "build_info": "b1"},
                upstream="http://127.0.0.1:8080",
                seed=begin + number,
                key=f"{low[0][number]:016x}" if number % 2 else None,
                request_hash=hash_of((seed, begin + number)),
                owner=f"user-{owner[number]:02}",
                cacheable=name == "done",
            )


def _shares(count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Cumulated shares of `count` parties, of which each has two thirds of the one before."""
    weights = np.cumsum((2 / 3) ** np.arange(count))
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = weights / weights[-1]
    return shares


def _uuid(created: int, high: int, low: int) -> str:
    """A UUIDv7 of this time (RFC 9562, section 5.7)."""
    digits = f"{created // 10**6:012x}7{high & 0xFFF:03x}{0x8000 | (high >> 12) & 0x3FFF:04x}"
    digits += f"{low & 0xFFFFFFFFFFFF:012x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
