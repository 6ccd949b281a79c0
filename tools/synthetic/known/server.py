"""The synthetic upstream with service times of known law, and a record of what it did.

Slots are given out first come, first served. An answer that follows another in its slot begins at
the moment at which that one was due to end, not at the later one at which this process saw it, so
that its lateness does not add up to a load.
"""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from tools.synthetic import pages
from tools.synthetic.answer import Answer, RequestError
from tools.synthetic.peer import Peer, Request
from tools.synthetic.server import Settings, Upstream

from .service import Service
from .truth import truth

#: Requests that the record holds: the last ones.
RECORDED = 100_000
#: Of an answer whose end a fault takes away, so many tokens come.
MOST_TOKENS = 1_000_000


@dataclass(slots=True)
class Served:
    """What the server did with one request; moments in seconds from the server's begin.

    Attributes:
        arrived: it was read whole.
        began: it got its slot; None where it never did.
        first, ended: its first and its last token were sent; None where they were not.
        tokens: that it asked for.
        work: its service time as drawn, stalls left out; None where it never began.
        first_due, due: when its first and its last token were, or would have been, due; None
            where it never began.
    """

    arrived: float
    tokens: int
    began: float | None = None
    first: float | None = None
    ended: float | None = None
    work: float | None = None
    first_due: float | None = None
    due: float | None = None


class KnownUpstream(Upstream):
    """An upstream whose answers take times of a known law."""

    def __init__(self, settings: Settings, service: Service) -> None:
        super().__init__(settings)
        self.service = service
        self.served: deque[Served] = deque(maxlen=RECORDED)
        self._draws = random.Random(f"service times {settings.language.seed}")
        self._under_way: dict[Peer, Served] = {}
        self._due: float | None = None  # the moment whose work is being done

    def now(self) -> float:
        """Seconds from the server's begin."""
        return (time.monotonic_ns() - self._started_ns) / 1e9

    def truth(self, query: str) -> dict[str, Any]:
        """GET /truth?rate=RATE&tokens=TOKENS.

        Raises:
            RequestError: the query holds something else.
        """
        asked = parse_qs(query)
        try:
            rates = [float(value) for value in asked.pop("rate", [])]
            tokens = int(asked.pop("tokens", ["1"])[-1])
            if asked or tokens < 1 or not all(0 < rate < float("inf") for rate in rates):
                raise ValueError
        except ValueError:
            raise RequestError(400, "/truth?rate=RATE&tokens=TOKENS, both above 0") from None
        return truth(self.service, self.settings.slots, rates[-1] if rates else None, tokens)

    def _route(self, peer: Peer, request: Request) -> None:
        if request.path == "/truth":
            peer.send(pages.reply(pages.dumps(self.truth(request.query))))
        elif request.path == "/truth/requests":
            rows = [asdict(served) for served in self.served]
            peer.send(pages.reply(pages.dumps({"requests": rows})))
        else:
            super()._route(peer, request)

    def _complete(self, peer: Peer, path: str, fields: dict[str, Any]) -> None:
        arrived = self.now()
        self._due = None
        super()._complete(peer, path, fields)
        if peer.answer is not None and peer not in self._under_way:
            self._record(peer, peer.answer, arrived)

    def _record(self, peer: Peer, answer: Answer, arrived: float) -> Served:
        served = Served(arrived, answer.total)
        self.served.append(served)
        self._under_way[peer] = served
        return served

    def _begin(self, peer: Peer, answer: Answer) -> None:
        served = self._under_way.get(peer)
        if served is None:  # it begins as it comes
            served = self._record(peer, answer, (answer.started_ns - self._started_ns) / 1e9)
            begun = served.arrived
        else:
            begun = self.now() if self._due is None else max(self._due, served.arrived)
        offsets = self.service.draw(self._draws, min(answer.total, MOST_TOKENS))
        served.began, served.work = begun, offsets[-1]
        served.first_due, served.due = (
            self.service.done(begun, offset) for offset in (offsets[0], offsets[-1])
        )
        events = -(-len(offsets) // self.language.group) if answer.streamed else 1
        for number in range(events):
            last = (number + 1) * self.language.group if answer.streamed else len(offsets)
            moment = self.service.done(begun, offsets[min(last, len(offsets)) - 1])
            say = partial(self._say, peer, answer, number, moment)
            self._at(self._started_ns + int(moment * 1e9), say)

    def _say(self, peer: Peer, answer: Answer, number: int, moment: float) -> None:
        """A token is due."""
        if peer.answer is not answer:
            return
        self._late_ns = max(self._late_ns, int((self.now() - moment) * 1e9))
        served = self._under_way[peer]
        served.first = served.first if number else self.now()
        self._due = moment
        try:
            if answer.streamed:
                if number == 0:
                    peer.send(pages.stream_head(peer.close_after))
                self._emit(peer, answer, time.monotonic_ns())
            else:
                self._start(peer, answer)
        finally:
            self._due = None

    def _end(self, peer: Peer) -> None:
        served = self._under_way.get(peer)
        if served is not None:  # else it was a page, and no answer
            served.ended = self.now()
        super()._end(peer)

    def _gone(self, peer: Peer) -> None:
        self._due = None  # who gets the slot gets it now
        super()._gone(peer)

    def _release(self, peer: Peer) -> None:
        self._under_way.pop(peer, None)
        super()._release(peer)
