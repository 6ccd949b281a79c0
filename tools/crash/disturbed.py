"""The other campaign: the server lives, and its clients' connections do not.

32 clients ──▶ proxy that cuts, stalls and delays ──▶ llcuda-server ──▶ synthetic upstream
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tools.crash import kept
from tools.crash.clients import PATIENCE, Clients, Options
from tools.crash.jobs import SyntheticJobs
from tools.crash.ledger import Ledger
from tools.crash.proxy import Manners, Proxy
from tools.crash.server import Server, ServerError, ended
from tools.overhead.processes import synthetic_upstream

#: Slots of the synthetic upstream: fewer than clients, so that some requests wait in the queue.
SLOTS = 24
#: Seconds between two looks into the store.
_LOOK = 2.0


@dataclass(frozen=True)
class Plan:
    """What a campaign does.

    Attributes:
        seconds: for which new work is begun.
        rate: tokens a second on each stream.
        keepalive: seconds of silence after which a client asks for a sign of life.
        reconnect: seconds for which a client tries again what it lost.
    """

    seed: int
    seconds: float
    clients: int = 32
    rate: float = 60.0
    keepalive: float = 2.0
    reconnect: float = 60.0
    manners: Manners = field(default_factory=Manners)


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    troubles: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """What must not be; nothing, if all is well."""
        found = list(self.ledger.violations)
        if not self.ledger.counts["acknowledged"]:
            found.append("no answer came to its end")
        return found

    def document(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "seed": self.plan.seed,
            "clients": self.plan.clients,
            "rate": self.plan.rate,
            "seconds": round(self.seconds, 1),
            "troubles": dict(sorted(self.troubles.items())),
            "counts": dict(sorted(self.ledger.counts.items())),
            "violations": self.violations,
        }


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run a campaign in an empty folder.

    Args:
        say: told how far it has come, in a few words.

    Raises:
        StartError: the synthetic upstream did not start.
    """
    outcome = Outcome(plan)
    began = time.monotonic()
    with synthetic_upstream("--rate", str(plan.rate), "--slots", str(SLOTS)) as upstream:
        options = ["--upstream", "http://{}:{}".format(*upstream.address)]
        try:
            async with ended(Server(folder / "data", options)) as server:
                await server.start()
                await server.ready()
                await _disturb(outcome, server, say)
        except ServerError as error:
            outcome.ledger.violation(str(error))
    outcome.seconds = time.monotonic() - began
    return outcome


async def _disturb(outcome: Outcome, server: Server, say: Callable[[str], None]) -> None:
    plan, ledger = outcome.plan, outcome.ledger
    rng = random.Random(plan.seed)
    proxy = Proxy(server.port, rng, plan.manners)
    outcome.troubles = proxy.counts
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.run)
        options = Options(
            f"127.0.0.1:{proxy.port}", reconnect=plan.reconnect, keepalive=plan.keepalive
        )
        clients = Clients(options, SyntheticJobs(rng), ledger, rng)
        over = trio.Event()

        async def work() -> None:
            await clients.run(plan.clients)
            over.set()

        nursery.start_soon(work)
        until = trio.current_time() + plan.seconds
        while trio.current_time() < until and not ledger.violations:
            await trio.sleep(min(_LOOK, until - trio.current_time()))
            await kept.check_new(server.folder, ledger)
            say(
                f"{max(0.0, until - trio.current_time()):.0f} s left: "
                f"{ledger.counts['acknowledged']:,} results, {ledger.counts['pieces']:,} pieces, "
                f"{proxy.counts['connections']:,} connections"
            )
        clients.enough = True
        with trio.move_on_after(PATIENCE) as patience:
            if not ledger.violations:
                await over.wait()
        nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        ledger.violation(f"clients not done {PATIENCE:g} s after the last request")
    if not ledger.violations:
        await server.stop()
        for complaint in server.complaints():
            ledger.violation(f"the server's log: {complaint}")
        await kept.check_all(server.folder, ledger)
