"""The memory campaign: clients attack a server, and its memory stays within a bound.

attackers ──▶ llcuda-server ──▶ synthetic upstream
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import llcuda_protocol as wire
from tools.campaign import campaign
from tools.campaign.memory import mib, resident
from tools.memory import attacks, http_attacks
from tools.memory.attacks import Client, connected

#: Each attack by its name.
ATTACKS: dict[str, Callable[[int, Counter[str]], Awaitable[None]]] = {
    "probabilities": attacks.probabilities,
    "unread": attacks.unread,
    "streams": attacks.streams,
    "prompts": attacks.prompts,
    "replies": attacks.replies,
    "http-bodies": http_attacks.bodies,
    "http-readers": http_attacks.readers,
    "http-heads": http_attacks.heads,
}

#: Slots of the synthetic upstream: all that come run at once.
SLOTS = 1000
#: Seconds between two looks at the memory, and between two questions for the status.
_LOOK, _ASK = 0.05, 0.25
#: Seconds in which the server must answer a status, and in which memory must have come back:
#: a generation goes on for 30 s after its client has gone.
_ANSWER, _BACK = 30.0, 45.0
#: Bytes more than before the attack that the server may take after it.
_LEFT = 64 << 20


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """One attack.

    Attributes:
        attack: its name.
        seconds: how long it lasts.
        most: bytes that the server may take in memory.
        rate: tokens per second of each stream.
    """

    attack: str
    seconds: float = 20.0
    most: int = 300 << 20
    rate: float = 50.0


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What an attack did.

    Attributes:
        before, peak, after: bytes in memory before it, at most, and when its clients had gone.
        status: seconds that each report took during the attack.
        counts: what the attackers did and got.
    """

    before: int = 0
    peak: int = 0
    after: int = 0
    status: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "attack": self.plan.attack,
            "seconds": round(self.seconds, 1),
            "before": self.before,
            "peak": self.peak,
            "after": self.after,
            "status": sorted(round(one, 4) for one in self.status),
            "counts": dict(sorted(self.counts.items())),
            "violations": self.violations,
        }


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run one attack in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Attack, watch, and see what is left."""
        plan, outcome = self.outcome.plan, self.outcome
        options = ["--rate", str(plan.rate), "--slots", str(SLOTS), "--exit-on-eof"]
        # What the attackers left to run is of no interest at the end.
        server = await self.make_server(
            ["--drain-seconds", "0"], await self.start_upstreams(1, options)
        )
        await server.start()
        await server.ready()
        async with connected(server.port) as client, trio.open_nursery() as nursery:
            await self._ask(client)
            outcome.before = outcome.peak = resident(server.pid)
            nursery.start_soon(self._watch, server.pid)
            with trio.move_on_after(plan.seconds):
                async with trio.open_nursery() as attackers:
                    attackers.start_soon(self._ask_again, client)
                    attackers.start_soon(ATTACKS[plan.attack], server.port, outcome.counts)
            with trio.move_on_after(_BACK):
                while resident(server.pid) > outcome.before + _LEFT // 2:  # noqa: ASYNC110 - another process
                    await trio.sleep(_LOOK)
            outcome.after = resident(server.pid)
            nursery.cancel_scope.cancel()
        if outcome.peak > plan.most:
            self.ledger.violation(f"{mib(outcome.peak)} in memory; {mib(plan.most)} are allowed")
        if outcome.after > outcome.before + _LEFT:
            self.ledger.violation(
                f"{mib(outcome.after)} in memory {_BACK:g} s after the attack, "
                f"{mib(outcome.before)} before it"
            )
        if not outcome.status:
            self.ledger.violation("no status was answered during the attack")
        await self.stop(server)

    async def _watch(self, pid: int) -> None:
        while True:
            now = resident(pid)
            self.outcome.peak = max(self.outcome.peak, now)
            self.say(f"{self.outcome.plan.attack}: {mib(now)}")
            await trio.sleep(_LOOK)

    async def _ask_again(self, client: Client) -> None:
        while not self.ledger.violations:
            await trio.sleep(_ASK)
            began = time.monotonic()
            await self._ask(client)
            self.outcome.status.append(time.monotonic() - began)

    async def _ask(self, client: Client) -> None:
        """Ask for the status, as an operator does, who reads the answer."""
        with trio.move_on_after(_ANSWER) as patience:
            await client.send(wire.Status(next(client.numbers)))
            event = await client.next()
            if not isinstance(event, wire.Report):
                self.ledger.violation(f"a status was answered with {event}")
        if patience.cancelled_caught:
            self.ledger.violation(f"no status for {_ANSWER:g} s")
