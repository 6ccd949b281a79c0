"""One campaign: servers on one database, whose machines, networks and database are in trouble.

64 clients ══▶ gates ══▶ server s1 … s4 ══▶ gates ══▶ upstream-1 … upstream-6
                           ║      ║
                         gates   gates          each ══▶ may be cut, silent or slow
                           ║      ║
                  the other servers, PostgreSQL
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tools.campaign import campaign
from tools.campaign.clients import Options
from tools.campaign.upstreams import Upstream
from tools.cluster import check, fairness, trace
from tools.cluster.clients import PATIENCE, ClusterClients, ClusterJobs
from tools.cluster.database import Database
from tools.cluster.faults import CLIENTS, DATABASE, KINDS, OF_SEVERAL, Faults, Timing
from tools.cluster.links import Gate, Network
from tools.cluster.member import Member, ServerError
from tools.cluster.who import holder
from tools.overhead.processes import StartError

BREAKER = Path(__file__).with_name("broken.py")
#: Seconds between two looks into the store.
_LOOK = 2.0
#: Share of readings that may end with an error that is allowed.
MOST_ERRORS = 0.1


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What a campaign does.

    Attributes:
        seconds: for which things go wrong, and clients begin new work.
        slots: of each upstream; all together fewer than clients, so that some requests wait.
        rate: tokens per second on each stream.
        longest: most tokens of an answer.
        kinds: of faults.
        clustered: the servers know each other. If not, each has its own generations.
        fairness: look at the shares of two users first.
        logs: where to keep all logs; None: nowhere.
    """

    seconds: float
    servers: int = 4
    upstreams: int = 6
    slots: int = 6
    clients: int = 64
    rate: float = 20.0
    longest: int = 120
    timing: Timing = field(default_factory=Timing)
    kinds: tuple[str, ...] = tuple(KINDS)
    clustered: bool = True
    fairness: bool = True
    logs: Path | None = None


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What a campaign found.

    Attributes:
        faults: by kind.
        told: what happened when.
        excused: the first errors that were allowed.
        shares: tokens of two users who both wanted more, before anything went wrong.
        disk: the database had a disk of its own, which could be full.
        traces: of generations that violations name, what servers and the database say.
    """

    faults: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    shares: dict[str, int] = field(default_factory=dict)
    disk: bool = False
    traces: dict[str, list[str]] = field(default_factory=dict)

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        found, counts = super().violations, self.ledger.counts
        if found or self.plan.broken is not None:
            return found
        if not counts["acknowledged"]:
            found.append("no answer came to its end")
        if counts["errors"] > MOST_ERRORS * (counts["acknowledged"] + counts["errors"]):
            found.append(f"{counts['errors']} readings ended with an error")
        return found

    def explained(self) -> list[tuple[str, str]]:
        """The violations, with what their readers did, and what is known of their generations."""
        out = []
        for what in self.ledger.violations:
            out.append(("violation", what))
            out += [("  its reader", line) for line in self.ledger.stories[what]]
        for id_, lines in self.traces.items():
            out.append(("generation", id_))
            out += [("", line) for line in lines]
        return out

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        plan = self.plan
        return {
            "seed": plan.seed,
            "broken": plan.broken,
            "servers": plan.servers,
            "upstreams": plan.upstreams,
            "clients": plan.clients,
            "rate": plan.rate,
            "seconds": round(self.seconds, 1),
            "faults": dict(sorted(self.faults.items())),
            "disk_of_its_own": self.disk,
            "shares": self.shares,
            "told": self.told,
            "excused": self.excused,
            "counts": dict(sorted(self.ledger.counts.items())),
            "violations": self.violations,
            "stories": self.ledger.stories,
            "traces": self.traces,
        }


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run a campaign in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """See Campaign."""
        try:
            await self._work()
        finally:
            if self.outcome.plan.logs is not None:
                self._keep(self.outcome.plan.logs)

    def _keep(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.folder.glob("*.log"):
            shutil.copy(log, folder)
        told = [f"seed {self.outcome.plan.seed}", *self.outcome.told, *self.outcome.excused]
        told += [line for _, line in self.outcome.explained()]
        (folder / "told").write_text("\n".join(told) + "\n", "utf-8")

    async def _work(self) -> None:
        """Start all, harm and work for a while; let everything come to its end, and look."""
        plan = self.outcome.plan
        database = Database()
        self._stack.push_async_callback(database.close)
        await database.make()
        self.outcome.disk = database.disk
        options = ["--rate", str(plan.rate), "--slots", str(plan.slots), "--exit-on-eof"]
        upstreams = await self.start_upstreams(plan.upstreams, options)
        network = Network(random.Random(self.rng.random()))
        async with trio.open_nursery() as nursery:
            members = await self._members(nursery, network, database, upstreams)
            if plan.fairness and plan.clustered:
                await self._share(members)
            clients = self._clients(members)
            faults = Faults(
                members,
                [one.name for one in upstreams],
                database,
                network,
                random.Random(self.rng.random()),
                plan.timing,
                [kind for kind in plan.kinds if plan.clustered or kind not in OF_SEVERAL],
            )
            self.outcome.told, self.outcome.faults = faults.told, faults.counts

            async def scenario(inner: trio.Nursery) -> None:
                await self._trouble(faults, members, database, upstreams)

            await self.with_clients(clients, plan.clients, scenario, "the last fault", PATIENCE)
            self.outcome.excused = clients.excused
            if not self.ledger.violations:
                await self._finish(members, database, upstreams, clients)
            for member in members:
                for complaint in member.complaints():
                    self.ledger.violation(f"log: {complaint}")
            await trio.to_thread.run_sync(self._trace, members, database.url())
            nursery.cancel_scope.cancel()

    def _trace(self, members: Sequence[Member], url: str) -> None:
        """Look for what explains the violations."""
        ledger, logs = self.ledger, [log for member in members for log in member.logs()]
        said = [text for what in ledger.violations for text in (what, *ledger.stories[what])]
        for id_ in trace.named_in(said):
            found = trace.of_logs(id_, logs) + trace.of_database(id_, url)
            self.outcome.traces[id_] = found

    async def _members(
        self,
        nursery: trio.Nursery,
        network: Network,
        database: Database,
        upstreams: Sequence[Upstream],
    ) -> list[Member]:
        """All servers, started, with all gates."""
        plan = self.outcome.plan
        members: list[Member] = []

        def name_of(addresses: str) -> str:
            names = {one.front.address: one.label for one in members}
            return ", ".join(names.get(one, one) for one in addresses.split(","))

        self.ledger.name_of = name_of

        def who(port: int, gate: int) -> str | None:
            return holder({one.pid: one.name for one in members if one.pid}, port, gate)

        async def gate(target: str, who: Any, port: int = 0) -> Gate:
            made = Gate(network, target, who, port)
            await nursery.start(made.run)
            return made

        users = self.folder / "users"
        fairness.write_users(users)
        options = ["--auth-token-file", str(users)]
        options += ["--durability", "cluster"] if plan.clustered else []
        for upstream in upstreams:
            known = await gate(upstream.name, who, upstream.port)
            options += ["--upstream", f"http://{known.address}"]
        for number in range(plan.servers):
            name = f"s{number + 1}"
            store = database.url((await gate(DATABASE, name, database.port)).port)
            front, side = await gate(name, CLIENTS), await gate(name, who)
            member = Member(
                name,
                self.folder,
                [*options, "--store", store],
                front,
                side,
                is_clustered=plan.clustered,
                broken=plan.broken,
                breaker=BREAKER,
            )
            members.append(member)
            self._stack.push_async_callback(member.end)
            try:
                await member.begin()
            except ServerError as error:  # that is no finding
                raise StartError(str(error)) from error
        return members

    async def _share(self, members: Sequence[Member]) -> None:
        """Before anything goes wrong: whether two users get the same."""
        self.say("two users who both want more than there is")
        plan, addresses = self.outcome.plan, [one.front.address for one in members]
        found = await fairness.measure(addresses, plan.slots * plan.upstreams, self.rng)
        self.outcome.shares = dict(found)
        if (what := fairness.unfair(found)) is not None:
            self.ledger.violation(what)

    def _clients(self, members: Sequence[Member]) -> ClusterClients:
        plan = self.outcome.plan
        address = ",".join(one.front.address for one in members)
        levels = (None, None, None, None, "disk") if plan.clustered else (None, "disk", "strict")
        jobs = ClusterJobs(random.Random(self.rng.random()), levels, plan.longest)
        rng = random.Random(self.rng.random())
        token = fairness.token_of(fairness.WORK)
        options = Options(
            address,
            reconnect=20.0,
            http=True,
            lists=True,
            token=token,
            batches=plan.clustered and plan.broken is None,
        )
        return ClusterClients(options, jobs, self.ledger, rng)

    async def _trouble(
        self,
        faults: Faults,
        members: Sequence[Member],
        database: Database,
        upstreams: Sequence[Upstream],
    ) -> None:
        """Harm for a while, or until the first violation; look meanwhile."""
        calm = trio.Event()
        until = trio.current_time() + self.outcome.plan.seconds

        async def harm() -> None:
            await faults.run(self.outcome.plan.seconds)
            calm.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(harm)
            while not calm.is_set() and not self.ledger.violations:
                with trio.move_on_after(_LOOK):
                    await calm.wait()
                await check.check_new(database.url(), self.ledger)
                for member in members:
                    if not member.trouble:
                        member.check()
                for upstream in upstreams:
                    upstream.check()
                self._show(members, until - trio.current_time())
            nursery.cancel_scope.cancel()

    async def _finish(
        self,
        members: Sequence[Member],
        database: Database,
        upstreams: Sequence[Upstream],
        clients: ClusterClients,
    ) -> None:
        """All is over: nothing may be held, and everything must be stored."""
        self.say("all is over: stopping the servers, looking at the store")
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member.stop)
        batches = clients.batches
        await check.check_all(
            database.url(), self.ledger, clients.ended, batches.keys, batches.failed
        )

    def _show(self, members: Sequence[Member], left: float) -> None:
        counts = self.ledger.counts
        now = ", ".join(f"{one.name} {one.trouble or 'well'}" for one in members)
        self.say(
            f"{max(0.0, left):.0f} s left: {counts['acknowledged']:,} results, "
            f"{counts['pieces']:,} pieces, {counts['asked again']:,} asked again, "
            f"{counts['violations']} violations; {now}"
        )
