"""Which server a request is to wait at: a pure function of what is known of all of them.

What is known of the others is up to a second old. So what was sent to each since then counts as if
it were there, and a request stays where it is unless it is clearly better off elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

#: A request goes elsewhere for so many seconds, and for this part of the wait here.
_GAIN_SECONDS, _GAIN_PART = 0.25, 0.1
#: Seconds for which a slot is taken to be busy with one request, where nothing is known of that.
_UNKNOWN = 10.0


@dataclass(frozen=True)
class Offer:
    """What a server has for a request.

    Attributes:
        slots: of upstreams with its model, all of them.
        free: of these.
        queued: requests that wait for the model.
        wait: seconds until one more would have a slot, estimated; None: not known.
    """

    server: int
    slots: int
    free: int
    queued: int = 0
    wait: float | None = None

    def seconds(self, sent: int = 0) -> float:
        """Seconds that a request would wait there, behind so many that are on their way."""
        if not self.slots:
            return math.inf
        ahead = self.queued + sent - self.free
        if ahead < 0:
            return 0.0
        if self.wait is None:
            return _UNKNOWN * (ahead + 1) / self.slots
        return max(self.wait, 0.0) * (ahead + 1) / (self.queued + 1)


def part(free: int, me: int, others: Collection[int]) -> int:
    """How many of a server's free slots are for what waits at this one.

    All see the same of who else has something for them, so that nobody takes another one's.

    Args:
        me: this server's number.
        others: those of the others from which something is to go there.
    """
    count, more = divmod(max(free, 0), len(others) + 1)
    return count + (sum(one < me for one in others) < more)


def choose(own: Offer, others: Sequence[Offer], sent: Mapping[int, int]) -> int | None:
    """The server at which a request waits least; None: here, or there is none.

    Args:
        own: of this server.
        sent: how many requests for the model were sent to each since it said what it has.
    """
    here = own.seconds()
    if not here:
        return None
    best = min(
        others,
        # Of those that have room the one with most of it, so that nobody is overrun.
        key=lambda one: (
            one.seconds(sent.get(one.server, 0)),
            sent.get(one.server, 0) - one.free,
            one.server,
        ),
        default=None,
    )
    if best is None:
        return None
    there = best.seconds(sent.get(best.server, 0))
    if math.isinf(there):
        return None
    if math.isinf(here) or there + max(_GAIN_SECONDS, _GAIN_PART * here) < here:
        return best.server
    return None
