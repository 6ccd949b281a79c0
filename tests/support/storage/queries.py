"""Queries of all kinds, and results to select from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Query
from tests.support.storage.records import MODEL, SECOND, START, result

STATES = ("done", "failed", "cancelled", "interrupted")
#: Values of each filter of a list; None: it is not set.
FILTERS: dict[str, list[Any]] = {
    "id": [None, "result-000007"],
    "owner": [None, "", "ann", "nobody"],
    "states": [(), *((state,) for state in STATES), ("failed", "cancelled"), STATES],
    "model": [None, "demo", "none"],
    "since": [None, START + 20 * SECOND],
    "until": [None, START + 40 * SECOND],
    "after": [None, "result-000030"],
}


def every_query(**changes: Any) -> Iterator[Query]:
    for values in product(*FILTERS.values()):
        yield Query(**dict(zip(FILTERS, values, strict=True)), **changes)


def mixed(count: int) -> list[Result]:
    """Results whose filters have nothing to do with each other; times that are not in order."""
    rng = random.Random(1)
    return [
        result(
            n,
            tokens=1,
            created=START + (n + rng.randrange(-3, 4)) * SECOND,
            state=rng.choice(STATES),
            owner=rng.choice(["", "ann", "bob"]),
            model={**MODEL, "name": rng.choice(["demo", "other"]), "build_info": rng.choice("ab")},
            key=f"key {n}" if n % 2 else None,
        )
        for n in range(count)
    ]
