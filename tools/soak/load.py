"""The load of a soak: an open loop of the users' requests, measured and checked.

A request is sent when it is due, however many others are under way, so that a slow server cannot
hide what it makes others wait for. Waits count from when a request was due.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator

from tools.load.loop import LoadLoop
from tools.load.streams import LlcudaConnection, LoadError, Recorder, Request
from tools.soak.users import PEOPLE, Arrival
from tools.synthetic.tokens import generation

#: Characters from which on a conversation ends.
_LONGEST_PROMPT = 2000
#: Seconds for a request: a bound for hangs.
_PATIENCE = 120.0
#: Most seconds between two looks at requests that hang.
_LOOK = 1.0
#: Errors that are kept word by word.
_MOST_ERRORS = 10


class Window:
    """Measurements since the last sample, in seconds."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.intervals: list[float] = []
        self.requests = 0
        self.tokens = 0


class Load:
    """Makes the requests, measures, and compares each answer with what it must be.

    Args:
        address: of llcuda-server, HOST:PORT.
        connections: of each user, which stay open.

    Attributes:
        window: the current one; whoever takes a sample replaces it.
        counts: requests, by how they ended.
        first: seconds to the first token, by user.
        errors: the first errors.
        running: the requests under way.
    """

    def __init__(self, address: str, connections: int) -> None:
        host, _, port = address.rpartition(":")
        self.window = Window()
        self.counts: Counter[str] = Counter()
        self.first: defaultdict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []
        self.running: set[UserRequest] = set()
        self._address = (host, int(port))
        self._connections = connections
        self._loop = LoadLoop()
        self._conversations: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=16))
        self._number = 0

    def __repr__(self) -> str:
        return f"<Load: {len(self.running)} running, {dict(self.counts)}>"

    async def run(self, wanted: Iterator[Arrival]) -> None:
        """Make all requests, and return when they are over, or a connection broke."""
        try:
            own = {
                person.name: [self._connect(person.token) for _ in range(self._connections)]
                for person in PEOPLE
            }
            began = time.monotonic()
            left = enumerate(wanted)
            following = next(left, None)

            def step() -> float | None:
                nonlocal following
                now = time.monotonic()
                while following is not None and (due := began + following[1].at) <= now:
                    number, arrival = following
                    mine = own[arrival.person.name]
                    self._begin(arrival, mine[number % len(mine)], due)
                    following = next(left, None)
                late = [request for request in self.running if now > request.due + _PATIENCE]
                for request in late:
                    request.failed(f"not over within {_PATIENCE:g} s")
                if following is None:
                    return _LOOK if self.running else -1.0
                return min(_LOOK, began + following[1].at - now)

            await self._loop.run_in_trio(step)
        except (LoadError, OSError) as error:
            self._wrong(str(error))
        finally:
            self._loop.close()

    def _connect(self, token: str) -> LlcudaConnection:
        connection = LlcudaConnection(self._address, Recorder(), stamped=False, token=token)
        self._loop.add(connection)
        return connection

    def _begin(self, arrival: Arrival, connection: LlcudaConnection, due: float) -> None:
        self.counts["requests"] += 1
        self.window.requests += 1
        if arrival.anew:
            connection = self._connect(arrival.person.token)
        request = UserRequest(self, arrival, self._prompt(arrival), connection, due)
        self.running.add(request)
        connection.begin(request)

    def _prompt(self, arrival: Arrival) -> str:
        """A new prompt, or an earlier answer and a further question."""
        self._number += 1
        conversations = self._conversations[arrival.person.name]
        if arrival.goes_on and conversations:
            return f"{conversations.popleft()}\nand number {self._number}?"
        return f"{arrival.person.name} asks number {self._number}: "

    def over(self, request: UserRequest) -> None:
        """A request ended."""
        self.running.discard(request)
        self.counts[request.reason] += 1
        text = generation(request.prompt, request.wanted)
        if not request.cancelled and len(request.prompt) + len(text) < _LONGEST_PROMPT:
            self._conversations[request.arrival.person.name].append(request.prompt + text)
        self._release(request)

    def failed(self, request: UserRequest, why: str) -> None:
        """A request failed."""
        self.running.discard(request)
        self._wrong(f"{request.arrival.person.name}: {why}")
        self._release(request)

    def _release(self, request: UserRequest) -> None:
        if request.arrival.anew:
            self._loop.remove(request.connection)

    def _wrong(self, what: str) -> None:
        self.counts["failed"] += 1
        if len(self.errors) < _MOST_ERRORS:
            self.errors.append(what)


class UserRequest(Request):
    """A request of a user."""

    def __init__(
        self, load: Load, arrival: Arrival, prompt: str, connection: LlcudaConnection, due: float
    ) -> None:
        super().__init__(prompt, arrival.tokens, on_disconnect=None)
        self.arrival = arrival
        self.connection = connection
        self.due = due
        self._load = load
        self._failed = False
        self._last = math.nan
        self._cancel_at = arrival.tokens // 2 if arrival.cancelled else math.inf

    def came(self, tokens: int, now: int) -> None:
        """See Request."""
        window, at = self._load.window, now / 1e9
        if self.first_ns == 0:
            window.first.append(at - self.due)
            self._load.first[self.arrival.person.name].append(at - self.due)
        else:
            window.intervals.append(at - self._last)
        window.intervals += [0.0] * (tokens - 1)
        window.tokens += tokens
        self._last = at
        super().came(tokens, now)
        if self.count >= self._cancel_at:
            self._cancel_at = math.inf
            self.connection.cancel(self)

    def end(self, said: int, reason: str = "") -> None:
        """See Request."""
        super().end(said, reason)
        if not self._failed:
            self._load.over(self)

    def failed(self, why: str) -> None:
        """See Request: the soak records the failure, and continues."""
        if not self._failed:
            self._failed = True
            self._load.failed(self, why)
