"""The task that watches one backend: is it there, which of its slots work, does it make tokens.

An upstream is believed when it makes tokens, not when it reports that it is healthy. So while its
circuit breaker is closed it is only looked at: /health each second, and /slots while any slot is
in use or being released. When the breaker is half open it must make one token, which is also the
signature of its model. One that answers nothing at all, not even /health, is silent: after a while
it counts as down, and leases on which no token came in that time are cut, so that their requests
go on elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS
from llcuda_net.errors import (
    RequestError,
    Unsupported,
    UpstreamBusy,
    UpstreamStalled,
    UpstreamUnavailable,
)
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import DOWN
from llcuda_net.upstream.model.fingerprint import Fingerprint
from llcuda_net.upstream.model.identity import probe
from llcuda_net.upstream.slots.table import Use

log = structlog.get_logger(__name__)

#: Seconds between two looks at an upstream that works.
INTERVAL = 1.0
#: Seconds between two looks at slots that are being released, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.004, 0.25
#: Seconds for an answer to /health or /slots.
TIMEOUT = 2.0
#: Seconds of silence on a stream after which, if /health is not answered either, it is cut.
SILENCE = 5.0
#: Seconds after which a slot counts as released where the upstream has no /slots.
RELEASE_SECONDS = 1.0


class HealthCheck:
    """Watches a backend while `run` runs.

    Args:
        backend: what it sees is recorded there.
        must_sign: returns whether the backend's model must be distinguished from others.
        on_change: called when the pool must look at the backend again.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        must_sign: Callable[[], bool] = lambda: False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._must_sign = must_sign
        self._on_change = on_change
        self._pause = FIRST_PAUSE
        self._checked = -math.inf
        self._hold = -math.inf  # until when it asked not to be looked at

    def __repr__(self) -> str:
        backend = self._backend
        checked = f"/health answered at {self._checked:.1f} s"
        seen = checked if math.isfinite(self._checked) else "/health not answered yet"
        return f"<HealthCheck of {backend.name}: {backend.state}, {seen}>"

    async def run(self) -> None:
        """Watch the backend until cancelled."""
        backend = self._backend
        backend.watched = True
        async with trio.open_nursery() as nursery:
            if isinstance(backend.fingerprint, Fingerprint):
                nursery.start_soon(backend.fingerprint.run)
            while True:
                if backend.residence is not None:  # before, nothing is there to be looked at
                    await backend.residence.arrived()
                try:
                    await self._look() if backend.breaker.closed else await self._probe()
                except UpstreamBusy as error:
                    self._busy(error)
                except RequestError as error:
                    backend.not_ready(error)
                    if error.code in DOWN:
                        backend.process_lost()
                    self._report(backend.mark_down(error.message))
                    if isinstance(error, UpstreamUnavailable):
                        self._cut_silent(backend.down_since)
                except Exception:  # a bug here must not end the server
                    log.exception("watch_failed", upstream=backend.name)
                    self._report(backend.mark_down("could not be watched"))
                await self._rest()

    def _report(self, changed: bool) -> None:
        if changed:
            self._on_change()

    def _busy(self, error: UpstreamBusy) -> None:
        """It refused what was asked here, and works: asked again when it wants to be."""
        backend = self._backend
        self._report(backend.refused(error))
        self._hold = backend.rest.until
        if not backend.breaker.closed:
            backend.breaker.trip(error.message, self._hold)

    async def _rest(self) -> None:
        """Wait until the next look is due, or the backend requires attention.

        Meanwhile the end of its own rest is passed on, so that what waits for it goes there.
        """
        backend, breaker = self._backend, self._backend.breaker
        pause = INTERVAL
        if backend.releasing:
            pause = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        next_look = max(trio.current_time() + pause, self._hold)
        while (
            trio.current_time() < (due := next_look if breaker.closed else breaker.retry_at)
            and not backend.absent
        ):
            with trio.move_on_at(min(due, backend.rest.until or due)):
                await backend.attention.wait()
            self._report(backend.rest.over())
            if backend.attention.is_set():
                backend.attention = trio.Event()
                self._pause = FIRST_PAUSE
                if breaker.closed and trio.current_time() >= self._hold:
                    return

    # -- while it is up -------------------------------------------------------------------------

    async def _look(self) -> None:
        """See that it is there, and which of its slots work."""
        backend = self._backend
        if backend.upstream.properties is None or not backend.table.known:
            await self._ask()
        unknown = backend.signature is None or backend.unproven
        if unknown and backend.owned and self._must_sign():
            if not backend.free and backend.releasing:
                await self._look_at_slots()  # it was another server's until now
            await self._sign()
        if trio.current_time() >= self._checked + INTERVAL:
            with trio.move_on_after(TIMEOUT) as scope:
                await backend.upstream.check()
            if scope.cancelled_caught:
                self._no_answer()
                return
            self._checked = trio.current_time()
            backend.silent_since = None
        if backend.leases or (backend.owned and (backend.releasing or backend.foreign)):
            await self._look_at_slots()

    async def _ask(self) -> None:
        backend = self._backend
        self._report(backend.learn(await backend.upstream.ask()))
        self._report(backend.learn_reranks(await backend.upstream.reranks()))

    async def _look_at_slots(self) -> None:
        backend, table = self._backend, self._backend.table
        asked = trio.current_time()
        working = None
        if backend.reports_slots:
            with trio.move_on_after(TIMEOUT) as scope:
                working = await backend.upstream.slots()
                backend.reports_slots = working is not None
            if scope.cancelled_caught:
                return  # it answers between two steps, and a step over a long prompt takes long
        if working is None or len(working) < len(table):
            # A slot that is missing from the report would otherwise never be free again.
            self._report(table.expire(asked - RELEASE_SECONDS))
        else:
            self._report(table.observe(working, asked))

    def _no_answer(self) -> None:
        """/health was not answered in time: what stands still is to go on elsewhere."""
        now, backend = trio.current_time(), self._backend
        if backend.silent_since is None:
            backend.silent_since = now - TIMEOUT
        since = backend.silent_since
        if now - since >= SILENCE:
            self._report(backend.mark_down(f"has said nothing for {now - since:.0f} s"))
            self._cut_silent(since)

    def _cut_silent(self, since: float) -> None:
        """Cut the leases on which nothing came for too long, of a backend that is gone."""
        now = trio.current_time()
        for lease in tuple(self._backend.leases):
            silence = now - max(since, lease.silent_since)
            if silence >= SILENCE:
                lease.cut(f"has said nothing for {silence:.0f} s")

    # -- while it is not ------------------------------------------------------------------------

    async def _probe(self) -> None:
        """See whether one that was down makes a token."""
        backend = self._backend
        backend.breaker.probe()
        with trio.move_on_after(TIMEOUT) as scope:
            await backend.upstream.check()
        if scope.cancelled_caught:
            backend.breaker.trip(f"does not answer within {TIMEOUT:g} s")
            self._cut_silent(backend.down_since)
            return
        await self._ask()
        if backend.releasing:
            await self._look_at_slots()
        if not backend.free and not backend.leases and backend.releasing:
            raise UpstreamStalled("it still works at what was broken off", retry=True)
        if backend.owned:  # else its slots are another server's, who asks it
            await self._sign()
        self._report(backend.record_success())

    async def _sign(self) -> None:
        """Have it make a token, if it is one that makes any and has a slot free for that."""
        backend = self._backend
        if COMPLETIONS not in backend.roles:
            return
        found = backend.table.best(())
        if found is None:
            return  # those who hold its slots will find out whether it works
        slot = found[0]
        number = slot.number if backend.table.known else None
        slot.turn(Use.BUSY)
        try:
            signature = await probe(backend.upstream, number)
        except Unsupported:
            backend.lacks_completions()
            signature = {}
        except BaseException:
            slot.turn(Use.RELEASING)
            raise
        finally:
            slot.chain = ()  # it holds the probe now
        slot.turn(Use.FREE)
        self._report(backend.sign(signature))
