"""The proxy campaign: the server lives, and the connections of its clients do not.

32 clients ──▶ proxy that cuts, stalls and delays ──▶ llcuda-server ──▶ synthetic upstream
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tools.campaign import campaign
from tools.campaign.clients import Clients, Options
from tools.campaign.jobs import SyntheticJobs
from tools.proxy.proxy import Proxy, Timing

#: Slots of the synthetic upstream: fewer than clients, so that some requests wait in the queue.
SLOTS = 24
#: Seconds between two looks into the store.
_LOOK = 2.0


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What a proxy campaign does.

    Attributes:
        seconds: for which clients begin new work.
        rate: tokens per second on each stream.
        keepalive: seconds of silence after which a client pings.
        reconnect: seconds for which a client tries to reconnect.
    """

    seconds: float
    clients: int = 32
    rate: float = 60.0
    keepalive: float = 2.0
    reconnect: float = 60.0
    timing: Timing = field(default_factory=Timing)


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What a proxy campaign found.

    Attributes:
        troubles: how often each happened.
    """

    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        found = super().violations
        if not self.ledger.counts["acknowledged"]:
            found.append("no answer came to its end")
        return found

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "seed": self.plan.seed,
            "clients": self.plan.clients,
            "rate": self.plan.rate,
            "seconds": round(self.seconds, 1),
            "troubles": dict(sorted(self.troubles.items())),
            "counts": dict(sorted(self.ledger.counts.items())),
            "violations": self.violations,
        }


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run a campaign in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Disturb the connections for a while; then let everything come to its end."""
        plan, ledger = self.outcome.plan, self.ledger
        options = ["--rate", str(plan.rate), "--slots", str(SLOTS), "--exit-on-eof"]
        server = await self.make_server([], await self.start_upstreams(1, options))
        await server.start()
        await server.ready()
        proxy = Proxy(server.port, self.rng, plan.timing)
        self.outcome.troubles = proxy.counts
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.run)
            connection = Options(
                f"127.0.0.1:{proxy.port}",
                reconnect=plan.reconnect,
                keepalive=plan.keepalive,
                http=True,
            )
            clients = Clients(connection, SyntheticJobs(self.rng), ledger, self.rng)

            async def look(_: trio.Nursery) -> None:
                until = trio.current_time() + plan.seconds
                while (left := until - trio.current_time()) > 0 and not ledger.violations:
                    await trio.sleep(min(_LOOK, left))
                    await self.check_new(server)
                    self.say(
                        f"{max(0.0, left - _LOOK):.0f} s left: "
                        f"{ledger.counts['acknowledged']:,} results, "
                        f"{ledger.counts['pieces']:,} pieces, "
                        f"{proxy.counts['connections']:,} connections"
                    )

            await self.with_clients(clients, plan.clients, look, "the last request")
            nursery.cancel_scope.cancel()
        if not ledger.violations:
            await self.stop(server)
            await self.check_all(server)
