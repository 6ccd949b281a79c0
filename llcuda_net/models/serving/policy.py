"""Which local models are loaded, and which must leave. Pure: no clock, no I/O, no event loop.

Theory. Models that somebody waits for *claim* memory. Claims are served in the order of the fair
queue, and those that have waited for longer than `overdue` come first, the longest first. A claim
that does not fit takes memory from *victims*. Idle models are unloaded, those of least worth
first. A model that generates is never unloaded: it *leaves*, so it gets no new work, and ends when
what it runs has finished. It has its turn before that: from when it was loaded, nobody may take the
place of a model in use for a *quantum*, which grows with what the swap costs. So two users who
alternate between two models are served in batches, and swapping takes a bounded part of the time.
A model that became idle a moment ago keeps its place for a *grace* within its quantum, since
whoever has read one answer often asks again: Iyer and Druschel, "Anticipatory scheduling: a disk
scheduling framework to overcome deceptive idleness in synchronous I/O" (SOSP 2001).

A claim that has to wait reserves what it needs. Later claims may be served meanwhile with what is
left beside it, as in the backfilling of Lifka, "The ANL/IBM SP scheduling system" (JSSPP 1995): a
large model that needs the place of two is not starved by small ones.

Bound. A model that left has no claim older than that, so each other model is served at most once
before a claim that is overdue. Let N be the models for which somebody waits, Q the longest quantum,
G the longest generation, U the longest end of a process, L the longest load. Then a model is loaded
at most `overdue + (N + 1) (Q + G + U + L)` after its first request began to wait, and as many
requests as it has slots start at once. Loads that fail count as loads.

Worth is that of GreedyDual-Size with Frequency (Cherkasova, "Improving WWW proxies performance with
Greedy-Dual-Size-Frequency caching policy", HPL-98-69, 1998) with a frequency that decays: uses per
byte, times what it costs to load the model again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.loads import refusal
from llcuda_net.models.serving.state import ModelState, Plan, Wait
from llcuda_net.upstream.residence import Presence


@dataclass(frozen=True, slots=True)
class Rules:
    """The constants of the policy, in seconds where nothing else is said.

    Attributes:
        least_quantum: for which a model in use keeps its place at least.
        quantum_loads: the same, as a multiple of what it takes to load both models of the swap.
        grace: for which a model that became idle keeps its place within its quantum.
        overdue: a claim that waits longer comes before all that do not.
        loads: how many models are loaded at once.
        half_life: a use this long ago counts half.
    """

    least_quantum: float = 5.0
    quantum_loads: float = 2.0
    grace: float = 2.0
    overdue: float = 30.0
    loads: int = 1
    half_life: float = 600.0


RULES = Rules()


def plan(models: Iterable[ModelState], budget: Budget, now: float, rules: Rules = RULES) -> Plan:
    """Decide which models are loaded and which leave.

    Call it whenever something has changed, and at `Plan.again_at`; do all that it says.
    """
    return _Planner(tuple(models), budget, now, rules).run()


def count_use(uses: float, last_used: float, now: float, rules: Rules = RULES) -> float:
    """`ModelState.uses` after one more request."""
    return _decayed(uses, last_used, now, rules) + 1.0


def _decayed(uses: float, last_used: float, now: float, rules: Rules) -> float:
    if not uses:
        return 0.0
    return float(uses * 0.5 ** (max(0.0, now - last_used) / rules.half_life))


def worth(model: ModelState, now: float, rules: Rules = RULES) -> tuple[float, float]:
    """What models are ranked by when one must leave: the least first."""
    size = max(1, model.need.host + model.need.gpu)
    uses = _decayed(model.uses, model.last_used, now, rules)
    return uses * model.load_seconds / size, model.last_used


@dataclass(slots=True)
class _Victims:
    """Those whose place a claim takes.

    Attributes:
        models: which.
        at: when all of them may be taken; infinity where nobody can say.
        enough: whether there are enough.
    """

    models: list[ModelState]
    at: float
    enough: bool


class _Planner:
    def __init__(
        self, models: tuple[ModelState, ...], budget: Budget, now: float, rules: Rules
    ) -> None:
        self._models = models
        self._budget = budget
        self._now = now
        self._rules = rules
        held = [one for one in models if one.presence is not Presence.UNLOADED]
        #: What is free now and kept for nobody.
        self._free = budget.room - sum((one.need for one in held), Need())
        #: What becomes free because processes end, and what remains when all claims are served.
        self._coming = sum((one.need for one in held if one.presence is Presence.UNLOADING), Need())
        self._room = self._free + self._coming
        self._loading = [one for one in models if one.presence is Presence.LOADING]
        #: Those whose place is taken, by the claim that takes it ("" for none).
        self._taken: dict[str, str] = {}
        self._load: list[str] = []
        self._leave: list[str] = []
        self._unload: list[str] = []
        self._waits: dict[str, Wait] = {}
        self._times: list[float] = []

    def run(self) -> Plan:
        self._dismiss()
        self._shrink()
        for claim in self._claims():
            self._serve(claim)
        stay = [
            one.name
            for one in self._models
            if one.presence is Presence.LEAVING and one.name not in self._taken
        ]
        self._explain_others()
        later = [time for time in self._times if self._now < time < math.inf]
        return Plan(
            tuple(self._load),
            tuple(self._leave),
            tuple(stay),
            tuple(self._unload),
            min(later, default=None),
            self._waits,
        )

    # -- who leaves without a claim ---------------------------------------------------------------

    def _dismiss(self) -> None:
        """Let go what was asked to leave, and what was idle for long enough."""
        for one in self._models:
            if one.presence not in (Presence.LOADED, Presence.LEAVING):
                continue
            if one.wanted is False:
                self._take(one, "")
                self._let_go(one)
            elif not one.pinned and not one.in_use and one.idle_seconds is not None:
                due = max(one.last_used, one.since) + one.idle_seconds
                self._times.append(due)
                if due <= self._now:
                    self._take(one, "")
                    self._let_go(one)

    def _shrink(self) -> None:
        """Let go what does not fit: a model needs more than was estimated, or there is less."""
        if self._room.host >= 0 and self._room.gpu >= 0:
            return
        lacking = Need(max(0, -self._room.host), max(0, -self._room.gpu))
        found = self._victims(lacking, None, at_once=True)
        for one in found.models:
            self._take(one, "")
            self._let_go(one)

    # -- claims -----------------------------------------------------------------------------------

    def _claims(self) -> list[ModelState]:
        """Those that claim memory, in the order in which they get it."""
        claims = []
        for one in self._models:
            if not one.claims:
                continue
            if one.failed_until > self._now:
                self._times.append(one.failed_until)
                self._wait(
                    one, "could not be loaded; it is tried again", one.failed_until - self._now
                )
            elif (why := refusal(one, self._models, self._budget)) is not None:
                self._waits[one.name] = Wait(why)
            else:
                claims.append(one)
                if len(claims) > 1:
                    self._times += [c.claims_since + self._rules.overdue for c in claims]
        return sorted(claims, key=self._precedence)

    def _precedence(self, claim: ModelState) -> tuple[int, float, float, str]:
        since = claim.claims_since
        if claim.pinned:
            return 0, 0.0, since, claim.name
        if self._now - since >= self._rules.overdue:
            return 1, since, claim.rank, claim.name
        return 2, claim.rank, since, claim.name

    def _serve(self, claim: ModelState) -> None:
        """Load it, or keep what it needs for it and say why it waits."""
        busy = len(self._loading) + len(self._load) >= self._rules.loads
        found = _Victims([], -math.inf, True)
        if not claim.need.within(self._room):
            found = self._victims(claim.need, claim)
        for one in found.models:
            self._take(one, claim.name)
        self._room -= claim.need
        # Without enough victims (some are pinned, or taken already) it only waits.
        if found.enough and found.at <= self._now and not busy:
            for one in found.models:
                self._let_go(one)
        elif found.enough:
            self._times.append(found.at)
        fits = found.enough and not found.models and claim.need.within(self._free)
        if fits and not busy:
            self._load.append(claim.name)
            self._free -= claim.need
            self._wait(claim, "is being loaded", claim.load_seconds)
            return
        self._reserve(claim, found)
        self._explain(claim, found, busy)

    def _reserve(self, claim: ModelState, found: _Victims) -> None:
        """Keep of what is free now the part that neither victims nor ending processes give."""
        given = sum((one.need for one in found.models), Need())
        left = _positive(claim.need - given)
        from_coming = Need(
            min(left.host, max(0, self._coming.host)), min(left.gpu, max(0, self._coming.gpu))
        )
        self._coming -= from_coming
        self._free -= left - from_coming

    # -- victims ----------------------------------------------------------------------------------

    def _victims(self, need: Need, claim: ModelState | None, *, at_once: bool = False) -> _Victims:
        """Whose place a claim takes, so that `need` fits.

        Args:
            at_once: quanta do not count, and what loads frees nothing now.
        """
        # What is lacking already must be found for nobody's claim but `_shrink`'s.
        room = Need() if at_once else self._room
        candidates = []
        for one in self._models:
            if one.pinned or one.name in self._taken:
                continue
            if at_once and one.presence is Presence.LOADING:
                continue
            if one.presence in (Presence.LOADED, Presence.LEAVING, Presence.LOADING):
                at = self._now if at_once else self._takeable_at(one, claim)
                candidates.append(
                    (
                        max(at, self._now),
                        self._kind(one),
                        worth(one, self._now, self._rules),
                        one.name,
                        one,
                    )
                )
        candidates.sort(key=lambda c: c[:4])
        chosen: list[tuple[float, ModelState]] = []
        for at, _, _, _, one in candidates:
            if need.within(room):
                break
            chosen.append((at, one))
            room += one.need
        # A large one may have made small ones needless, and some free what was not lacking.
        for entry in sorted(
            chosen, key=lambda c: worth(c[1], self._now, self._rules), reverse=True
        ):
            if need.within(room - entry[1].need):
                chosen.remove(entry)
                room -= entry[1].need
        return _Victims(
            [one for _, one in chosen],
            max((at for at, _ in chosen), default=-math.inf),
            need.within(room),
        )

    def _kind(self, one: ModelState) -> int:
        """What has finished goes before what is idle, then what leaves already, then what works."""
        if one.presence is Presence.LEAVING:
            return 2 if one.running else 0
        if one.presence is Presence.LOADING:
            return 4
        return 3 if one.in_use else 1

    def _takeable_at(self, one: ModelState, claim: ModelState | None) -> float:
        """When a model's place may be taken."""
        if one.presence is Presence.LEAVING:
            return -math.inf
        quantum = self._quantum(one, claim)
        if one.presence is Presence.LOADING:  # when it will have had its turn
            return max(self._now, one.since + one.load_seconds) + quantum
        turn_ends = one.since + quantum
        return turn_ends if one.in_use else min(turn_ends, one.last_used + self._rules.grace)

    def _quantum(self, one: ModelState, claim: ModelState | None) -> float:
        both = one.load_seconds + (claim.load_seconds if claim else 0.0)
        return max(self._rules.least_quantum, self._rules.quantum_loads * both)

    def _take(self, one: ModelState, claim: str) -> None:
        self._taken[one.name] = claim
        self._room += one.need

    def _let_go(self, one: ModelState) -> None:
        """Have a model unloaded, or leave where it is in use."""
        if one.presence is Presence.LOADED and one.running:
            self._leave.append(one.name)
        elif one.presence in (Presence.LOADED, Presence.LEAVING) and not one.running:
            self._unload.append(one.name)

    # -- what those who wait are told -------------------------------------------------------------

    def _wait(self, one: ModelState, why: str, seconds: float | None) -> None:
        self._waits[one.name] = Wait(f"model {one.name} {why}", seconds)

    def _explain(self, claim: ModelState, found: _Victims, busy: bool) -> None:
        running = [one for one in found.models if one.running]
        loading = [one.name for one in self._loading] + self._load
        seconds: float | None = claim.load_seconds
        if found.models and found.at > self._now:
            names = " and ".join(one.name for one in found.models)
            had = "has had its" if len(found.models) == 1 else "have had their"
            why = f"is loaded when {names} {had} turn"
            seconds = found.at - self._now + claim.load_seconds if found.at < math.inf else None
        elif running:
            parts = [f"{one.name} has finished {_count(one.running)}" for one in running]
            why = f"is loaded when {' and '.join(parts)}"
            ends = [one.finishes_in for one in running]
            known = [end for end in ends if end is not None]
            seconds = max(known) + claim.load_seconds if len(known) == len(ends) else None
        elif busy and loading:
            why = f"is loaded after {' and '.join(loading)}"
            seconds = claim.load_seconds + sum(
                max(0.0, one.load_seconds - (self._now - one.since if one in self._loading else 0))
                for one in self._models
                if one.name in loading
            )
        else:
            why = "is loaded when the memory of another model is free"
        self._wait(claim, why, seconds)

    def _explain_others(self) -> None:
        """Those that are neither loaded nor claim."""
        for one in self._models:
            if not one.waiting or one.name in self._waits:
                continue
            if one.presence is Presence.LOADING:
                left = max(0.0, one.load_seconds - (self._now - one.since))
                self._wait(one, "is being loaded", left)
            elif one.presence is Presence.UNLOADING or (
                one.name in self._taken
                and (one.presence is Presence.LEAVING or one.name in self._leave + self._unload)
            ):
                self._wait(one, "makes room for another model, and is loaded again", None)


def _positive(need: Need) -> Need:
    return Need(max(0, need.host), max(0, need.gpu))


def _count(requests: int) -> str:
    return "1 request" if requests == 1 else f"{requests} requests"
