"""A campaign with batches: their server is killed at random moments, and each line is asked once.

batches of many lines ──▶ llcuda-server, killed and started ──▶ synthetic upstream, which counts
"""

from __future__ import annotations

import io
import json
import random
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from llcuda_net.batch.api import BatchApi
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tools.campaign import campaign
from tools.campaign.jobs import computed
from tools.campaign.ledger import Ledger
from tools.campaign.server import Server
from tools.synthetic.pages import apply_template

#: Slots of the synthetic upstream.
SLOTS = 8
#: Of a hundred kills, how many come while the server starts.
_EARLY = 15
#: Seconds for which a client tries a server that was killed, and for the last batches.
_PATIENCE, _LAST = 120.0, 600.0
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
BREAKER = Path(__file__).with_name("broken.py")


@dataclass(frozen=True)
class Plan(campaign.Plan):
    """What the campaign does.

    Attributes:
        kills: at least so many, while batches run.
        lines: of each batch.
        clients: batches at once.
        rate: tokens per second on each stream of the upstream.
        life: fewest and most seconds from when the server is ready to its kill.
    """

    kills: int
    lines: int = 1000
    clients: int = 2
    rate: float = 400.0
    life: tuple[float, float] = (0.1, 1.5)


@dataclass
class Outcome(campaign.Outcome[Plan]):
    """What the campaign found.

    Attributes:
        kills, early: kills in all, and while the server started.
        batches, lines: that came to their end, and were right.
        asked: completions that the upstream was asked for.
        continued: splices of the results: each may be one more request.
    """

    kills: int = 0
    early: int = 0
    batches: int = 0
    lines: int = 0
    asked: int = 0
    continued: int = 0

    def document(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "seed": self.plan.seed,
            "broken": self.plan.broken,
            "lines_of_a_batch": self.plan.lines,
            "clients": self.plan.clients,
            "kills": self.kills,
            "kills_while_starting": self.early,
            "batches": self.batches,
            "lines": self.lines,
            "completions": self.asked,
            "splices": self.continued,
            "seconds": round(self.seconds, 1),
            "violations": self.violations,
        }


@dataclass
class Work:
    """One batch: what it asks, and what must come of it.

    Attributes:
        data: its input.
        path: that all of its lines are for.
        texts: the answer of each line, in order.
    """

    data: bytes
    path: str
    texts: list[str] = field(default_factory=list)

    @classmethod
    def draw(cls, number: int, lines: int, rng: random.Random) -> Work:
        """A batch of so many lines, of one kind."""
        work = cls(b"", rng.choice((_CHAT, _TEXT)))
        found = []
        for line in range(lines):
            asked = f"batch {number}, line {line}, {rng.random():.9f}"
            params = {"n_predict": rng.randint(1, 12), "temperature": 0}
            body: dict[str, Any] = {"max_tokens": params["n_predict"], "temperature": 0}
            if work.path == _CHAT:
                messages = [{"role": "user", "content": asked}]
                body["messages"], asked = messages, apply_template(messages)
            else:
                body["prompt"] = asked
            pieces = computed(asked, params)[0]
            work.texts.append("".join(piece.text for piece in pieces))
            one = {"custom_id": f"{line}", "method": "POST", "url": work.path, "body": body}
            found.append(json.dumps(one).encode())
        work.data = b"\n".join(found)
        return work

    def wrong(self, batch: dict[str, Any], output: bytes) -> str | None:
        """What is wrong with a batch that is over; None: nothing."""
        counts = {"total": len(self.texts), "completed": len(self.texts), "failed": 0}
        if (batch["status"], batch["request_counts"]) != ("completed", counts):
            return f"it is {batch['status']}, {batch['request_counts']}"
        found = [json.loads(line) for line in output.splitlines()]
        names = [one["custom_id"] for one in found]
        if names != [f"{n}" for n in range(len(self.texts))]:
            return f"its output has {len(names)} lines, {len(set(names))} of them different"
        for one, text in zip(found, self.texts, strict=True):
            (choice,) = one["response"]["body"]["choices"]
            said = choice["message"]["content"] if self.path == _CHAT else choice["text"]
            if (said or "") != text:
                return f"line {one['custom_id']} says {said!r}, and should say {text!r}"
        return None


class Client:
    """Makes one batch after the other, in a thread, over whatever becomes of the server.

    Attributes:
        keys: of all lines that it had asked: the results that there must be, and no others.
    """

    def __init__(self, number: int, address: str, outcome: Outcome, folder: Path) -> None:
        self.keys: set[str] = set()
        self._number = number
        self._outcome = outcome
        self._output = folder / f"output-{number}"
        self._rng = random.Random(f"{outcome.plan.seed} {number}")
        self._api = BatchApi(f"http://{address}", patience=_PATIENCE)
        self._count = 0

    def run(self, enough: threading.Event) -> None:
        """Work until it is enough, and the last batch is over."""
        ledger: Ledger = self._outcome.ledger
        try:
            with closing(self._api):
                while not enough.is_set() and not ledger.violations:
                    self._one()
        except Exception as error:
            ledger.violation(f"client {self._number}: {type(error).__name__}: {error}")

    def _one(self) -> None:
        plan, ledger = self._outcome.plan, self._outcome.ledger
        self._count += 1
        work = Work.draw(self._count, plan.lines, self._rng)
        file = self._api.upload(io.BytesIO(work.data), "lines")
        id_ = self._api.create(file, work.path, "24h", f"{self._count}")["id"]
        self.keys |= {f"{id_}:{n}" for n in range(plan.lines)}
        batch = self._api.wait(id_, lambda _: None)
        output = b""
        if batch["output_file_id"] is not None:
            self._api.download(batch["output_file_id"], self._output)
            output = self._output.read_bytes()
        why = work.wrong(batch, output)
        if why is not None:
            ledger.violation(f"{id_}: {why}")
            return
        self._outcome.batches += 1
        self._outcome.lines += plan.lines


async def run(plan: Plan, folder: Path, say: campaign.Say) -> Outcome:
    """Run the campaign in an empty folder; see Campaign.run."""
    return await _Campaign(Outcome(plan), folder, say).run()


class _Campaign(campaign.Campaign[Outcome]):
    async def work(self) -> None:
        """Kill the server while clients have batches; then let all of them come to their end."""
        plan = self.outcome.plan
        options = ["--rate", str(plan.rate), "--slots", str(SLOTS), "--exit-on-eof"]
        upstreams = await self.start_upstreams(1, options)
        server = await self.make_server([], upstreams, breaker=BREAKER)
        clients = [
            Client(number, server.address, self.outcome, self.folder)
            for number in range(plan.clients)
        ]
        enough = threading.Event()
        await server.start()
        await server.ready()
        with trio.move_on_after(_LAST) as last:
            last.deadline = float("inf")
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(self._in_thread, client, enough)
                while self.outcome.kills < plan.kills and not self.ledger.violations:
                    await self._one_life(server)
                enough.set()
                last.deadline = trio.current_time() + _LAST
        if last.cancelled_caught:
            self.ledger.violation(f"batches not over {_LAST:g} s after the last restart")
        if not self.ledger.violations:
            async with httpx.AsyncClient() as asking:
                told = (await asking.get(f"{upstreams[0].url}/synthetic")).json()
            self.outcome.asked = int(told["completions"])
            await self.stop(server)
            keys = {key for client in clients for key in client.keys}
            await trio.to_thread.run_sync(self._check_store, server.folder, keys)

    async def _in_thread(self, client: Client, enough: threading.Event) -> None:
        await trio.to_thread.run_sync(client.run, enough, abandon_on_cancel=True)

    async def _one_life(self, server: Server) -> None:
        """Let it live for a while, kill it, and start the next one."""
        plan, rng = self.outcome.plan, self.rng
        await trio.sleep(rng.uniform(*plan.life))
        await server.kill()
        self.outcome.kills += 1
        await server.start()
        while rng.random() * 100 < _EARLY and self.outcome.kills < plan.kills:
            await trio.sleep(rng.uniform(0.0, 1.0))
            await server.kill()
            self.outcome.kills += 1
            self.outcome.early += 1
            await server.start()
        await server.ready()
        self.say(
            f"kill {self.outcome.kills}/{plan.kills}: {self.outcome.batches} batches, "
            f"{self.outcome.lines:,} lines, {self.ledger.counts['violations']} violations"
        )

    def _check_store(self, folder: Path, keys: set[str]) -> None:
        """Each line has one result, and there is no other; nor did the upstream get more."""
        seen: set[str] = set()
        with closing(SqliteStore(folder)) as store:
            for result in store.export(Query(limit=None)):
                key = result.key or ""
                self.outcome.continued += len(result.splices)
                if result.state != "done":
                    self.ledger.violation(f"{result.id} of {key} is {result.state}")
                elif key in seen:
                    self.ledger.violation(f"{key} was asked twice: {result.id}")
                elif key not in keys:
                    self.ledger.violation(f"{result.id}: nobody asked {key or 'it'}")
                seen.add(key)
        if len(keys - seen):
            self.ledger.violation(f"{len(keys - seen)} lines have no result")
        # What was cut is asked again from where it was. A request that the upstream had before it
        # was on the disk is no request yet: at most one per slot and kill.
        most = len(keys) + self.outcome.continued + SLOTS * self.outcome.kills
        if not len(keys) <= self.outcome.asked <= most:
            self.ledger.violation(
                f"the upstream was asked {self.outcome.asked} times for {len(keys)} lines"
            )
