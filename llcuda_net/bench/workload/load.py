"""Sends a schedule and records what happens; computes no figure.

Tasks, all in one nursery that ends with the run:

    run
    ├── open schedule: one task sleeps from moment to moment and starts one task per session
    └── closed loop: one task per worker, each of which asks again and again

A session is one request or several, one after the other (see `asks`). A request that fails or takes
too long ends its own session and nothing else. The run ends when all requests have ended; where
`Plan.cut` is set, when the time is up, and what is under way then is recorded as CUT.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import trio
import trio.lowlevel

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.batch.targets.interface import Answer, PostProcess, Target
from llcuda_net.bench.workload.asks import Ask, Work
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.util.numbers import plain
from llcuda_protocol import ErrorCode

#: Seconds before the first request, so that the first moments of an open schedule are not late.
LEAD = 0.02
#: Seconds from look to look whether what was measured has ended.
_LOOK = 0.1
#: Seconds that a worker of a closed loop waits after a failure: a server that is not there answers
#: at once, and would be asked thousands of times per second.
AFTER_FAILURE = 0.1

#: Errors that are an answer: the server refused the request.
_REFUSALS = frozenset(
    {
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.KEY_CONFLICT,
        ErrorCode.CONTEXT_EXCEEDED,
        ErrorCode.UNSUPPORTED,
        ErrorCode.OVERLOADED,
        ErrorCode.UNAUTHORIZED,
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run sends.

    Attributes:
        schedule: when; its first `warmup` seconds are not measured.
        prompts: what: a session for each moment, of one turn or several.
        params: sampling parameters of every request.
        timeout: seconds from the intended moment after which a request is given up.
        warmup: seconds at the schedule's start whose requests are not measured.
        requests: end after so many measured sessions, if the time is not up before; None: no end.
        drain: seconds after the schedule's end for what is under way, then it is cut; None: until
            each has its answer or its timeout.
        cooldown: most seconds after the schedule's end in which requests are sent as before, until
            those of the schedule have ended; then these are cut. They belong to the warm-up, not
            to what is measured. An open schedule begins again. Not with `requests`.
        seed: of the order in which the two of a pair go.
        chat: send each prompt as a chat of one message, not as it is.
    """

    schedule: Schedule
    prompts: Work
    params: dict[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    warmup: float = 0.0
    requests: int | None = None
    drain: float | None = None
    cooldown: float = 0.0
    seed: int = 0
    chat: bool = False


class Run:
    """One run of a plan.

    Args:
        targets: path names with their targets; with two of them each prompt goes to both.
        after: work on each finished answer, once its time has been taken. It does not delay the
            request's own figures, but the worker of a closed loop waits for it.

    Attributes:
        records: one per request, in the order of their start.
        seconds: how long the run took, from the first moment to the last answer.
        until: when sending ended: at the schedule's end, or when `Plan.requests` were sent.
    """

    def __init__(
        self,
        plan: Plan,
        targets: dict[str, Target],
        *,
        after: PostProcess | None = None,
    ) -> None:
        self.plan = plan
        self.records: list[Record] = []
        self.seconds = 0.0
        self.until = plan.schedule.seconds
        self._targets = targets
        self._after = after
        self._start = 0.0
        self._taken = 0
        self._measured = 0
        self._begun_all = False
        self._pending = 0
        self._idle: trio.Event | None = None

    def __repr__(self) -> str:
        ended = sum(not math.isnan(record.ended) for record in self.records)
        return f"<Run of {self.plan.schedule.describe()}: {len(self.records)} begun, {ended} ended>"

    def now(self) -> float:
        """Seconds since the run's start."""
        return trio.current_time() - self._start

    async def run(self, start: float | None = None) -> list[Record]:
        """Send everything; returns the records.

        Args:
            start: the trio time at which the schedule begins; None: at once.
        """
        self._start = trio.current_time() + LEAD if start is None else start
        with trio.CancelScope() as scope:
            if self.plan.drain is not None:
                scope.deadline = self._start + self.plan.schedule.seconds + self.plan.drain
            async with trio.open_nursery() as nursery:
                if self._cooldown:
                    nursery.start_soon(self._stop, scope)
                if self.plan.schedule.moments is None:
                    await trio.sleep_until(self._start)
                    for worker in range(self.plan.schedule.concurrency):
                        nursery.start_soon(self._work, random.Random(self.plan.seed + worker))
                else:
                    await self._send(nursery, self.plan.schedule.moments)
        self.seconds = self.now()
        return self.records

    @property
    def _cooldown(self) -> float:
        return self.plan.cooldown if self.plan.requests is None else 0.0

    async def _stop(self, scope: trio.CancelScope) -> None:
        """End the run when all requests of the schedule have ended, whatever else is sent."""
        await trio.sleep_until(self._start + self.plan.schedule.seconds)
        while not self._begun_all or self._pending:
            self._idle = trio.Event()
            with trio.move_on_after(_LOOK):
                await self._idle.wait()
        scope.cancel()

    # -- who sends when -----------------------------------------------------------------------

    async def _send(self, nursery: trio.Nursery, moments: Sequence[float]) -> None:
        paths = list(self._targets)
        order = random.Random(self.plan.seed)
        measured, seconds = 0, self.plan.schedule.seconds
        later = (seconds + moment for moment in moments if moment < self._cooldown)
        for number, moment in enumerate(chain(moments, later)):
            if number % len(paths) == 0:
                order.shuffle(paths)
            if self.plan.requests is not None and measured >= self.plan.requests:
                self.until = moment  # up to this one more, the rate is the schedule's
                return
            measured += moment >= self.plan.warmup
            # Not where it is past: sleeping would let others run, and add to the lag.
            if self._start + moment > trio.current_time():
                await trio.sleep_until(self._start + moment)
            path = paths[number % len(paths)]
            later_on = number >= len(moments)
            request = partial(self._session, warmup=True) if later_on else self._session
            nursery.start_soon(request, number // len(paths), moment, path)
            if number == len(moments) - 1:
                await trio.lowlevel.checkpoint()  # it has begun, before the run's end is looked for
                self._begun_all = True

    async def _work(self, order: random.Random) -> None:
        """One worker of a closed loop."""
        plan, seconds = self.plan, self.plan.schedule.seconds
        self._begun_all = True
        while (now := self.now()) < seconds + self._cooldown:
            if plan.requests is not None and now >= plan.warmup:
                if self._measured >= plan.requests:
                    self.until = min(self.until, now)
                    return
                self._measured += len(self._targets)
            number = self._taken
            self._taken += 1
            paths = list(self._targets)
            order.shuffle(paths)
            warmup = now < plan.warmup or now >= seconds
            for path in paths:
                record = await self._session(number, self.now(), path, warmup=warmup)
                if not record.done:
                    await trio.sleep(AFTER_FAILURE)

    # -- one request --------------------------------------------------------------------------

    async def _session(
        self, number: int, intended: float, path: str, *, warmup: bool | None = None
    ) -> Record:
        """All turns of a session, of which most have one; returns the last turn's record.

        A turn that got no answer ends it; so does the schedule's end, before the next turn.
        """
        seconds = self.plan.schedule.seconds
        session = self.plan.prompts.session(number)
        ask, turn = session.first(), 0
        while True:
            apart = warmup
            if apart is None:
                apart = intended < self.plan.warmup or (turn > 0 and intended >= seconds)
            record = Record(number, intended, path, warmup=apart, turn=turn)
            record.session = number if session.several else None
            record.wanted_prompt = ask.prompt_tokens
            record.wanted_tokens = ask.wanted_tokens or ask.max_tokens
            self.records.append(record)
            answer = await self._request(record, ask)
            following = None if answer is None else session.following(answer, record)
            record.last = answer is not None and following is None
            if following is None:
                return record
            pause, ask = following
            intended, turn, warmup = record.ended + pause, turn + 1, None
            if intended >= seconds + self._cooldown:
                if self.plan.schedule.closed:  # its user still thinks: nobody else takes the place
                    await trio.sleep_until(self._start + seconds + self._cooldown)
                return record
            await trio.sleep_until(self._start + intended)

    async def _request(self, record: Record, ask: Ask) -> Answer | None:
        awaited = record.intended < self.plan.schedule.seconds or not record.warmup
        self._pending += awaited
        try:
            answer = await self._ask(record, ask)
            record.ended = self.now()
            if answer is not None and self._after is not None:
                record.post = await self._after(record, answer)
        finally:
            if math.isnan(record.ended):
                record.ended = self.now()
            self._pending -= awaited
            if self._idle is not None and not self._pending:
                self._idle.set()
        return answer

    async def _ask(self, record: Record, ask: Ask) -> Answer | None:
        plan = self.plan
        target = self._targets[record.path]
        params, more = plan.params, what_else(ask, chat=plan.chat)
        if ask.max_tokens is not None:
            params = {**params, "n_predict": ask.max_tokens}
        with trio.move_on_at(self._start + record.intended + plan.timeout) as scope:
            try:
                answer = await target.ask(ask.prompt, params, record, self.now, **more)
            except RequestError as error:
                record.outcome = outcome_of(error)
                record.error = f"{error.code}: {error.message}"
            except ConnectError as error:
                record.outcome, record.error = Outcome.FAILED, str(error)
            else:
                record.outcome = Outcome.DONE
                return answer
        if scope.cancelled_caught:
            record.outcome, record.error = Outcome.TIMEOUT, f"no end within {plain(plan.timeout)} s"
        return None


def what_else(ask: Ask, *, chat: bool) -> dict[str, Any]:
    """What a target gets besides the prompt: the messages of a chat, or texts to embed."""
    if ask.texts is not None:
        return {"texts": list(ask.texts)}
    if ask.messages is not None:
        return {"messages": list(ask.messages)}
    return {"messages": [{"role": "user", "content": ask.prompt}]} if chat else {}


def outcome_of(error: RequestError) -> Outcome:
    """What an error of the server counts as."""
    if error.code == ErrorCode.TIMEOUT:
        return Outcome.TIMEOUT
    return Outcome.REFUSED if error.code in _REFUSALS else Outcome.FAILED
