"""A power cut at any moment takes nothing from the journal that was said to be durable."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import trio

from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.records import Ended
from tests.support.storage.power_cut import Recorder, SimulatedFiles
from tests.support.storage.records import opened

FOLDER = Path("/journal")
CRASHES, WORKLOADS = 200, 10


def piece(generation: str, number: int) -> str:
    return f"{generation}/{number} "


def tokens_of(number: int) -> int:
    return 2 if number % 7 == 3 else 1


async def workload(files: SimulatedFiles, rng: random.Random, *, honest: bool = True) -> None:
    """Generations begin, grow, end and are forgotten; what is durable is noted as acknowledged."""
    note = files.recorder.note
    files.now = rng.random() < 0.5
    journal = Journal(FOLDER, files, interval=0, segment_bytes=1500)
    journal.open()
    logs: dict[str, JournalEntry] = {}
    names: dict[JournalEntry, str] = {}
    number = 0

    async def follow() -> None:
        while True:
            for entry in await journal.progressed():
                note("acknowledged", (names[entry], "tokens", entry.durable))

    async def forget(name: str) -> None:
        log = logs.pop(name)
        if rng.random() < 0.5:
            log.conclude("length", None, {"completion_tokens": log.count})
            await journal.sync()
            note("acknowledged", (name, "concluded", log.count))
        log.end(Ended(state="done"))
        await journal.sync()
        note("acknowledged", (name, "forgotten", 0))  # the store has it: it may go from here
        journal.forget(log)

    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        nursery.start_soon(follow)
        for _ in range(60):
            if len(logs) < 2 or rng.random() < 0.15:
                number += 1
                name = f"generation-{number}"
                logs[name] = journal.start(opened(number))
                names[logs[name]] = name
                logs[name].follow()
                logs[name].dispatched(name, {}, f"prompt of {name}")
                await journal.sync()
                note("acknowledged", (name, "tokens", 0))
                note("acknowledged", (name, "dispatches", 1))
            for name, log in logs.items():
                count = rng.randrange(4)
                new = range(log.count, log.count + count)
                if count:
                    counts = [tokens_of(i) for i in new]
                    log.append([piece(name, i) for i in new], list(new), counts=counts)
                if rng.random() < 0.1:
                    log.dispatched(name, {})
                if not honest:
                    note("acknowledged", (name, "tokens", log.count))
            await journal.written()
            if rng.random() < 0.5:
                asked = {name: log.dispatches for name, log in logs.items()}
                await journal.sync()
                for name, count in asked.items():
                    note("acknowledged", (name, "dispatches", count))
            if len(logs) > 4 or rng.random() < 0.1:
                await forget(rng.choice(sorted(logs)))
            if rng.random() < 0.1:
                await journal.compact()
        nursery.cancel_scope.cancel()


def lost(recorder: Recorder, moment: int, rng: random.Random, *, syncs: bool = True) -> list[str]:
    """What a power cut at this moment took, though it was acknowledged."""
    files = SimulatedFiles(recorder.image(moment, rng, syncs=syncs))
    pairs, report = Journal(FOLDER, files).open()
    found = {generation.id: generation for generation, _ in pairs}
    durable: Counter[str] = Counter()
    dispatches: Counter[str] = Counter()
    forgotten, concluded = set(), set()
    for name, what, count in recorder.acknowledged(moment):
        if what == "dispatches":
            dispatches[name] = max(dispatches[name], count)
            continue
        durable[name] = max(durable[name], count)
        if what == "forgotten":
            forgotten.add(name)
        elif what == "concluded":
            concluded.add(name)
    # A power cut tears tails and leaves holes in them. It damages nothing.
    out = [f"taken for damage: {problem}" for problem in report.problems]
    for name, generation in found.items():
        log = generation.log
        if log.pieces != [piece(name, i) for i in range(len(log.pieces))]:
            out.append(f"{name} has other tokens")
        if (log.counts or [1] * len(log.pieces)) != [tokens_of(i) for i in range(len(log.pieces))]:
            out.append(f"{name} has other counts")
        if generation.concluded is not None and generation.concluded.usage != {
            "completion_tokens": len(log.pieces)
        }:
            out.append(f"{name} ended elsewhere")
    for name in set(durable) - forgotten:
        if name not in found:
            out.append(f"{name} is gone")
        elif len(found[name].log.pieces) < durable[name]:
            out.append(f"{name} was cut short")
        elif name in concluded and found[name].concluded is None:
            out.append(f"{name} lost its end")
        elif not _dispatched(found[name], dispatches[name]):
            out.append(f"{name} lost a dispatch")
    return out


def _dispatched(generation: OpenGeneration, times: int) -> bool:
    last = generation.dispatched
    if times == 0:
        return True
    return (
        last is not None
        and last.number >= times - 1
        and last.prompt == f"prompt of {generation.id}"
    )


def crashes(*, honest: bool = True, syncs: bool = True) -> list[list[str]]:
    found = []
    for seed in range(WORKLOADS):
        rng = random.Random(seed)
        files = SimulatedFiles()
        trio.run(partial(workload, files, rng, honest=honest))
        for _ in range(CRASHES // WORKLOADS):
            moment = rng.randrange(len(files.recorder.events) + 1)
            found.append(lost(files.recorder, moment, rng, syncs=syncs))
    return found


def test_nothing_durable_is_lost() -> None:
    found = crashes()
    assert len(found) == CRASHES
    assert [problems for problems in found if problems] == []


@pytest.mark.parametrize("control", [{"honest": False}, {"syncs": False}])
def test_the_check_can_fail(control: dict[str, bool]) -> None:
    """Acknowledging before the sync, or a disk that lies, must be found out."""
    assert sum(bool(problems) for problems in crashes(**control)) > CRASHES // 20
