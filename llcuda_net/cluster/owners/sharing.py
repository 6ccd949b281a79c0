"""What users were served elsewhere since the last look: differences of what others report.

Reports are of all tokens since a server's life began, so one that is lost costs nothing: the next
one has its tokens. What a server served before it was first heard counts for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llcuda_net.cluster.owners.loads import OtherLoad, Served

_Place = tuple[str, int, str]
#: Seconds for which what a user was served is reported after the last of it: a report or two may be
#: lost meanwhile.
LATELY = 10.0


class Sharing:
    """What the other servers have served, as far as it was heard."""

    def __init__(self) -> None:
        self._heard: dict[int, dict[_Place, float]] = {}

    def __repr__(self) -> str:
        return f"<Sharing with {len(self._heard)} servers>"

    def heard(self, loads: Iterable[OtherLoad]) -> list[Served]:
        """What all others have served since the last call, summed."""
        found: dict[_Place, float] = {}
        now: dict[int, dict[_Place, float]] = {}
        for one in loads:
            before = self._heard.get(one.server)
            known = now[one.server] = dict(before or {})
            for served in one.load.served:
                place = served.model, served.priority, served.user
                more = served.tokens - known.get(place, 0.0)
                known[place] = served.tokens
                if before is not None and more > 0:
                    found[place] = found.get(place, 0.0) + more
        self._heard = now
        return [Served(*place, tokens) for place, tokens in found.items()]


def running_elsewhere(loads: Sequence[OtherLoad]) -> Mapping[str, int]:
    """How many requests of each user run at other servers."""
    found: dict[str, int] = {}
    for one in loads:
        for user, count in one.load.running.items():
            found[user] = found.get(user, 0) + count
    return found


def renamed(served: Iterable[Served], names: Mapping[str, str]) -> list[Served]:
    """With other names of the models; those without one are left out."""
    return [
        msgspec.structs.replace(one, model=names[one.model]) for one in served if one.model in names
    ]
