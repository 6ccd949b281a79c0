"""The synthetic upstream's one loop: requests, slots and the clock that emits tokens.

Others are measured against it, so it must cost little: one process, one selector, bytes formatted
ready to send, one send a stream and tick. It waits for a due token in `select` on the selector's
own descriptor, because epoll's timeout is whole milliseconds.
"""

from __future__ import annotations

import heapq
import ipaddress
import random
import select
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import pages
from .answer import Answer, Language, RequestError, prompt_ids
from .faults import BEFORE_HEADERS, HARMLESS, Fault, Faults
from .openai import KINDS, asked
from .peer import Peer, Request
from .routes import page
from .slots import Slots
from .strikes import interrupt, strike, strike_early
from .tokens import detokenise

#: Requests after which llama-server closes a connection that it keeps alive.
MAX_REQUESTS = 100
#: What the paths of each API begin with.
API_PATHS = {"both": "/", "openai": "/v1/"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line sets.

    Attributes:
        rate: tokens a second on each stream; 0: as fast as they are read.
        spread: each stream has a phase of its own; else all emit on one tick.
        first_token_delay: seconds from a request's start in its slot to its first token.
        keepalive: seconds after which an idle connection is closed; 0: never, nor after requests.
        loading: seconds from the start during which every request gets status 503.
        fault: the fault of requests to `fault_on` that name none themselves.
        api: of API_PATHS: which paths there are. "openai": others than its own give status 404.
    """

    host: str = "127.0.0.1"
    port: int = 0
    rate: float = 50.0
    spread: bool = False
    slots: int = 4
    first_token_delay: float = 0.0
    keepalive: float = 5.0
    loading: float = 0.0
    fault: str | None = None
    fault_on: str = "/completion"
    api: str = "both"
    language: Language = field(default_factory=Language)


class Upstream:
    """Listens from construction on; `run` serves until an exception (SystemExit) ends it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.language = settings.language
        self._faults = Faults(settings.fault)
        self._released = False  # what is held goes on
        self._random = random.Random(settings.language.seed)
        self._interval = int(1e9 / settings.rate) if settings.rate > 0 else 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((settings.host, settings.port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._peers: set[Peer] = set()
        self._slots = Slots(settings.slots, self._begin)
        self._ticking: dict[Peer, Answer] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._started_ns = self._tick_ns = time.monotonic_ns()
        self._requests = self._completions = self._tokens = self._dropped = self._late_ns = 0
        self._last_request: dict[str, Any] | None = None
        if settings.keepalive > 0:
            self._at(self._started_ns, self._close_idle)

    def watch(self, fileno: int, callback: Callable[[], None]) -> None:
        """Call back whenever a descriptor is readable."""
        self._selector.register(fileno, selectors.EVENT_READ, lambda mask: callback())

    def run(self) -> None:
        """Serve."""
        waiter = [self._selector.fileno()]
        while True:
            now = time.monotonic_ns()
            due = self._timers[0][0] if self._timers else now + 10**9
            if self._ticking:
                due = min(due, self._tick_ns)
            if due > now:
                select.select(waiter, [], [], (due - now) / 1e9)
            for key, mask in self._selector.select(0):
                key.data(mask)
            now = time.monotonic_ns()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            if self._ticking and self._tick_ns <= now:
                self._tick(now)

    def report(self) -> dict[str, Any]:
        """GET /synthetic: what happened so far; `dropped` answers ended early, by either side."""
        return {
            "requests": self._requests,
            "completions": self._completions,
            "tokens": self._tokens,
            "dropped": self._dropped,
            "late_ms": self._late_ns / 1e6,
            "connections": len(self._peers),
            "active": self._slots.active,
            "waiting": self._slots.waiting,
            "fault": self._faults.default,
            "last_request": self._last_request,
        }

    def _at(self, when_ns: int, callback: Callable[[], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (when_ns, self._timer_count, callback))

    # -- connections and requests -------------------------------------------------------------

    def _accept(self, mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self._peers.add(Peer(sock, self._selector, self._route, self._more, self._gone))

    def _gone(self, peer: Peer) -> None:
        self._peers.discard(peer)
        if peer.answer is not None:
            peer.answer = None
            self._dropped += 1
            self._release(peer)

    def _close_idle(self) -> None:
        now = time.monotonic_ns()
        limit = int(self.settings.keepalive * 1e9)
        for peer in list(self._peers):
            if peer.idle and now - peer.idle_since_ns > limit:
                peer.close()
        self._at(now + 10**9, self._close_idle)

    def _set(self, fields: dict[str, Any]) -> None:
        """POST /synthetic: the default fault from now on, or whether what is held goes on.

        Raises:
            RequestError: it is none, or others than this machine could say so.
        """
        if not ipaddress.ip_address(self._listener.getsockname()[0]).is_loopback:
            raise RequestError(403, "only on a loopback address")
        if "release" in fields:
            self._released = bool(fields["release"])
            return
        fault = fields.get("fault")
        try:
            if fault is not None:
                Fault.parse(str(fault))
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        self._faults.set(None if fault is None else str(fault))

    def _route(self, peer: Peer, request: Request) -> None:
        if request.path == "/synthetic":
            if request.method == "POST":
                self._set(request.json())
            peer.send(pages.reply(pages.dumps(self.report())))
            return
        self._requests += 1
        if self.settings.keepalive > 0:
            peer.close_after |= peer.requests >= MAX_REQUESTS
        if time.monotonic_ns() - self._started_ns < self.settings.loading * 1e9:
            raise RequestError(503, "Loading model")
        fields = request.json()
        if not request.path.startswith(API_PATHS[self.settings.api]):
            raise RequestError(404, "File Not Found")
        if request.method == "POST" and request.path in KINDS:
            self._complete(peer, request.path, fields)
            return
        body = page(f"{request.method} {request.path}", fields, self._slots.all, self.language)
        fault = self._faults.choose() if request.path == self.settings.fault_on else None
        self._reply(peer, body, fault)

    def _complete(self, peer: Peer, path: str, fields: dict[str, Any]) -> None:
        self._last_request = fields
        self._completions += 1
        fields = asked(path, fields)
        ids = prompt_ids(fields.get("prompt"))
        faults = self._faults if self.settings.fault_on == path else Faults()
        try:
            fault = faults.choose(fields.get("fault"), detokenise(ids))
        except ValueError as error:
            raise RequestError(400, str(error)) from None
        if fault is not None and fault.kind in BEFORE_HEADERS:
            strike_early(peer, fault)
            return
        if fault is not None and fault.kind == "interim":
            peer.send(pages.INTERIM)
        made, written = KINDS[path]
        kind = written if self.language.words else made
        peer.answer = kind(fields, ids, self.language, fault)
        peer.dribble = fault is not None and fault.kind == "dribble"
        self._slots.enter(peer)

    def _begin(self, peer: Peer, answer: Answer) -> None:
        """It has a slot: work on the prompt."""
        delay = self.settings.first_token_delay
        if not answer.streamed:
            delay += max(0, answer.total - 1) * self._interval / 1e9
        if delay > 0:
            self._at(time.monotonic_ns() + int(delay * 1e9), lambda: self._start(peer, answer))
        else:
            self._start(peer, answer)

    def _release(self, peer: Peer) -> None:
        self._ticking.pop(peer, None)
        self._slots.leave(peer)

    def _end(self, peer: Peer) -> None:
        """The answer has been said."""
        peer.answer = None
        self._release(peer)
        peer.finish()

    def _reply(self, peer: Peer, body: bytes, fault: Fault | None) -> None:
        """A reply that is not streamed, with its fault."""
        if fault is not None and fault.kind in BEFORE_HEADERS:
            strike_early(peer, fault)
            return
        if fault is not None and fault.kind in ("not-json", "wrong-types"):
            body = (
                b"this is not JSON" if fault.kind == "not-json" else b'{"content":17,"stop":"no"}'
            )
        data = pages.reply(body, 200, peer.close_after)
        if fault is not None and fault.kind == "interim":
            data = pages.INTERIM + data
        if fault is not None and fault.kind in ("die", "cut", "reset", "stall"):
            peer.send(data[: len(data) - len(body) // 2 - 1])
            interrupt(peer, fault)
            return
        peer.send(data)
        self._end(peer)

    # -- tokens -------------------------------------------------------------------------------

    def _start(self, peer: Peer, answer: Answer) -> None:
        """The prompt is done: send the head and the first token; later ones at the rate."""
        if peer.answer is not answer:
            return
        if not answer.streamed:
            answer.sent = answer.total
            answer.first_ns = time.monotonic_ns() - max(0, answer.total - 1) * self._interval
            self._tokens += answer.total
            body = pages.dumps(answer.summary(answer.text(answer.total)))
            self._reply(peer, body, answer.fault)
            return
        peer.send(pages.stream_head(peer.close_after))
        if self._interval == 0:
            peer.pulling = True
            peer.update()
            return
        now = time.monotonic_ns()
        self._emit(peer, answer, now)
        if peer.answer is not answer or peer.held or peer.endless:
            return
        if self.settings.spread:
            answer.due_ns = now + int(self._interval * (0.5 + self._random.random()))
            self._at(answer.due_ns, lambda: self._emit_spread(peer, answer))
        else:
            if not self._ticking:
                self._tick_ns = now + self._interval
            self._ticking[peer] = answer

    def _tick(self, now: int) -> None:
        """One decode step: the next token of every stream."""
        self._late_ns = max(self._late_ns, now - self._tick_ns)
        self._tick_ns += self._interval
        if self._tick_ns < now - 10**9:  # the process was stopped: do not make up for that long
            self._tick_ns = now + self._interval
        for peer, answer in list(self._ticking.items()):
            self._emit(peer, answer, now)

    def _emit_spread(self, peer: Peer, answer: Answer) -> None:
        if peer.answer is not answer:
            return
        now = time.monotonic_ns()
        self._late_ns = max(self._late_ns, now - answer.due_ns)
        self._emit(peer, answer, now)
        answer.due_ns += self._interval
        if peer.answer is answer and not peer.held and not peer.endless:
            self._at(answer.due_ns, lambda: self._emit_spread(peer, answer))

    def _more(self, peer: Peer) -> None:
        """A saturated stream has room."""
        if peer.answer is not None:
            self._emit(peer, peer.answer, time.monotonic_ns())

    def _emit(self, peer: Peer, answer: Answer, now: int) -> None:
        """Send the next event, then the end or the fault where it has come to that."""
        fault = answer.fault
        if fault is not None and fault.kind in HARMLESS:
            if fault.kind == "hold" and answer.sent >= fault.after and not self._released:
                return
            fault = None
        data = b""
        if not answer.done and (fault is None or answer.sent < fault.after):
            before = answer.sent
            data = answer.render(now)
            self._tokens += answer.sent - before
        if fault is not None and answer.sent >= fault.after:
            peer.send(data)
            self._ticking.pop(peer, None)
            strike(peer, answer, fault, self._end)
        elif answer.done:
            peer.send(data + answer.ending())
            if peer.answer is answer:
                self._end(peer)
        else:
            peer.send(data)
