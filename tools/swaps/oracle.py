"""How many loads a sequence of uses needs at least, for somebody who knows the future.

Belady, "A study of replacement algorithms for a virtual-storage computer" (IBM Systems Journal
1966): whoever evicts what is used farthest in the future loads least, where all are equally large.
With sizes the optimum is hard to compute. `least_loads` gives all models the size of the smallest
ones: as many places as there can be models at once at all, which no policy can beat. `clairvoyant`
evicts what is used farthest in the future until there is room, with the real sizes: it can be done,
by somebody who knows the future.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def least_loads(uses: Sequence[str], sizes: Mapping[str, int], budget: int) -> int:
    """A lower bound of the loads with which the models can be used in this order."""
    places = held = 0
    for size in sorted(sizes[name] for name in set(uses)):
        held += size
        if held > budget:
            break
        places += 1
    return clairvoyant(uses, dict.fromkeys(uses, 1), places)


def clairvoyant(uses: Sequence[str], sizes: Mapping[str, int], budget: int) -> int:
    """The loads of somebody who evicts what is used farthest in the future."""
    following: list[float] = [math.inf] * len(uses)
    seen: dict[str, int] = {}
    for index in range(len(uses) - 1, -1, -1):
        following[index] = seen.get(uses[index], math.inf)
        seen[uses[index]] = index
    loaded: dict[str, float] = {}
    loads = 0
    for index, name in enumerate(uses):
        if name not in loaded:
            loads += 1
            while loaded and sum(sizes[one] for one in loaded) + sizes[name] > budget:
                del loaded[max(loaded, key=lambda one: loaded[one])]
        loaded[name] = following[index]
    return loads
