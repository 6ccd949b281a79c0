"""One round: a backup under load, its server killed, the copy restored, and a server on it.

clients ──▶ llcuda-server ──▶ synthetic upstream, whose answers follow from the prompts
               │
               └─▶ data directory ──backup──▶ copy ──restore──▶ data directory ──▶ llcuda-server
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import trio

import llcuda_net
from llcuda_net.errors import LlcudaError
from llcuda_net.storage.backup.backup import back_up
from llcuda_net.storage.backup.manifest import Manifest
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tools.backup.broken import databases_first
from tools.campaign.server import Server, ended, environment
from tools.synthetic.tokens import generation

#: Seconds for all that was under way to come to its end.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Plan:
    """What a round does.

    Attributes:
        upstream: the URL of a synthetic upstream.
        clients: how many ask at a time.
        tokens: fewest and most of an answer.
        before: fewest and most seconds from the first request to the backup.
        broken: copy the databases first, and the journal a while later: must be found out.
    """

    upstream: str
    clients: int = 12
    tokens: tuple[int, int] = (1, 60)
    before: tuple[float, float] = (0.3, 2.0)
    broken: bool = False


@dataclass
class Round:
    """What became of one.

    Attributes:
        asked: prompt and tokens of each request that was sent, by its prompt's number.
        accepted: which request each generation is.
        begun, acknowledged: generations that had been accepted, and were done, when the backup
            began.
        running: how many the backup says were under way.
        violations: what must not be.
    """

    asked: dict[int, tuple[str, int]] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    running: int = 0
    violations: list[str] = field(default_factory=list)

    def text(self, id_: str) -> str:
        """What a generation is to say."""
        return generation(*self.asked[self.accepted[id_]])


async def run(plan: Plan, folder: Path, rng: random.Random, say: Callable[[str], None]) -> Round:
    """Run one round in an empty folder."""
    found = Round()
    options = ("--upstream", plan.upstream)
    async with ended(Server(folder / "data", options)) as server:
        await server.start()
        await server.ready()
        async with trio.open_nursery() as nursery:
            for _ in range(plan.clients):
                nursery.start_soon(_ask, server.address, plan, found, rng)
            await trio.sleep(rng.uniform(*plan.before))
            found.begun, found.acknowledged = {*found.accepted}, {*found.done}
            await _back_up(folder, found, broken=plan.broken)
            await trio.sleep(rng.uniform(0, 0.3))
            await server.kill()
            nursery.cancel_scope.cancel()
    say(f"{len(found.acknowledged)} results, {found.running} under way")
    await _command("restore", folder / "copy", "--data-dir", folder / "restored")
    async with ended(Server(folder / "restored", options)) as server:
        await server.start()
        await server.ready()
        await _read_all(server.address, found)
        await server.stop()
        found.violations += server.complaints()
    _look(folder / "restored", found)
    return found


async def _ask(address: str, plan: Plan, found: Round, rng: random.Random) -> None:
    """Ask one thing after the other, until the server is gone."""
    try:
        async with llcuda_net.connect(address, reconnect=0) as client:
            while True:
                number = len(found.asked)
                prompt, tokens = f"request {number}: {rng.random()}", rng.randint(*plan.tokens)
                found.asked[number] = prompt, tokens
                async with client.generate(
                    raw=prompt, n_predict=tokens, temperature=0, on_disconnect="continue"
                ) as stream:
                    found.accepted[stream.id] = number
                    async for _ in stream:
                        pass
                found.done.add(stream.id)
    except LlcudaError:
        pass


async def _back_up(folder: Path, found: Round, *, broken: bool) -> None:
    copy = folder / "copy"
    if broken:
        with databases_first():
            manifest = await trio.to_thread.run_sync(back_up, folder / "data", copy)
        found.running = manifest.running
        return
    await _command("backup", copy, "--data-dir", folder / "data")
    found.running = Manifest.read(copy).running


async def _command(name: str, *arguments: str | Path) -> None:
    """Run `llcuda store`."""
    line = [sys.executable, "-m", "llcuda_net.cli.main", "store", name, *map(str, arguments)]
    done = await trio.run_process(
        line, capture_stdout=True, capture_stderr=True, env=environment(), check=False
    )
    if done.returncode or b"Traceback" in done.stderr:
        raise subprocess.CalledProcessError(done.returncode, line, done.stdout, done.stderr)


async def _read_all(address: str, found: Round) -> None:
    """Read each generation that had begun before the backup to its end, and compare."""

    async def read(id_: str) -> None:
        try:
            async with client.attach(id_) as stream:
                text = "".join([piece async for piece in stream])
        except LlcudaError as error:
            found.violations.append(f"{id_} had begun before the backup, and is not there: {error}")
            return
        if text != found.text(id_):
            found.violations.append(f"{id_} says something else in the copy")

    with trio.move_on_after(_PATIENCE) as scope:
        async with llcuda_net.connect(address) as client, trio.open_nursery() as nursery:
            for id_ in found.begun:
                nursery.start_soon(read, id_)
    if scope.cancelled_caught:
        found.violations.append("something that was under way did not end")


def _look(folder: Path, found: Round) -> None:
    """Look at all results of the restored directory."""
    with closing(SqliteStore(folder)) as store:
        results = list(store.export(Query(limit=None)))
        found.violations += [problem.message for problem in store.verify() if problem]
    prompts: set[object] = set()
    for result in results:
        if result.id in found.accepted:
            asked = found.asked[found.accepted[result.id]]
        else:  # the server was killed before the client heard of it
            said = str(result.request.get("prompt"))
            asked = next((one for one in found.asked.values() if one[0] == said), (said, -1))
            if asked[1] < 0:
                found.violations.append(f"{result.id} was asked by nobody")
                continue
        if asked[0] in prompts:
            found.violations.append(f"{asked[0]!r} is there twice")
        prompts.add(asked[0])
        if result.state != "done":
            # What its client had left when the server was killed is of the first life alone.
            found.violations.append(f"{result.id} is {result.state}")
        elif result.text != generation(*asked):
            found.violations.append(f"the result {result.id} is another text")
    ids = {result.id for result in results}
    lost = len(found.acknowledged - ids)
    if lost:
        found.violations.append(f"{lost} results that were acknowledged before are not there")
