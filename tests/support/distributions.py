"""What is installed here because llcuda-net needs it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement


def normal(name: str) -> str:
    """The name of a distribution as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """What llcuda-net with these extras brings, by name, as far as it is here."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = [Requirement(f"llcuda-net[{','.join(extras)}]")]
    while wanted:
        one = wanted.pop()
        name = normal(one.name)
        own = frozenset(one.extras) | {""}
        if (name, own) in seen:
            continue
        seen.add((name, own))
        try:
            found[name] = distribution(one.name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or ():
            each = Requirement(line)
            if any(each.marker is None or each.marker.evaluate({"extra": e}) for e in own):
                wanted.append(each)
    del found["llcuda-net"]
    return found
