"""What bench_store.py measures: the bare disk, commits, the journal, and pruning."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from llcuda_net.storage.journal.entry import JournalEntry
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.records import Ended, Opened, Result, TokenLog, hash_of
from llcuda_net.storage.results.interface import Retention, Step
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.results.writer import Writer
from llcuda_net.storage.storage import Storage
from tools.overhead.stats import percentile

#: Tokens of a result, and tasks that commit at once when saturated.
TOKENS, TASKS = 64, 1024
STREAMS, RATE = 64, 50.0
_WORDS = [
    f"{stem}{end}" for stem in ("slot", "token", "kernel", "queue") for end in ("", "s", "ed")
]

Figures = dict[str, Any]


def quantiles(seconds: list[float], name: str) -> Figures:
    """Percentiles in milliseconds, of samples in seconds."""
    out: Figures = {f"{name}_count": len(seconds)}
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        value = percentile(seconds, share)
        out[f"{name}_{label}_ms"] = None if value is None else round(value * 1e3, 3)
    out[f"{name}_max_ms"] = round(max(seconds) * 1e3, 3) if seconds else None
    return out


def disk(folder: Path, count: int) -> Figures:
    """The control: append 4 KiB and fdatasync, again and again, with nothing of ours between."""
    path = folder / "control"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    block = random.Random(0).randbytes(4096)
    taken = []
    try:
        for number in range(count):
            started = time.perf_counter()
            os.pwrite(descriptor, block, number * len(block))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return quantiles(taken, "disk")


def make_result(number: int, rng: random.Random) -> Result:
    """A result of an ordinary size, all its own."""
    return Result(
        id=f"{number:016d}-{rng.getrandbits(64):016x}",
        state="done",
        created=number * 10**6 + 1_700_000_000 * 10**9,
        finished=number * 10**6 + 1_700_000_001 * 10**9,
        request={
            "prompt": "".join(rng.choices(_WORDS, k=40)) + str(number),
            "params": {"temperature": 0.0, "seed": number},
        },
        log=TokenLog(rng.choices(_WORDS, k=TOKENS), rng.choices(range(32_000), k=TOKENS)),
        reason="stop",
        usage={"completion_tokens": TOKENS, "prompt_tokens": 40},
        timings={"queue": 0.1, "connect": 0.5, "first_token": 12.0, "total": 900.0},
        model={"name": "demo", "size": 3_000_000, "build_info": "b1"},
        upstream="http://127.0.0.1:8080",
        seed=number,
        key=f"{rng.getrandbits(128):032x}",
        request_hash=hash_of(number),
        cacheable=True,
    )


async def _with_writer(folder: Path, use: Callable[[Writer], Any]) -> None:
    store = SqliteStore(folder, write=True)
    try:
        writer = Writer(store, lambda _: SqliteStore(folder))
        async with trio.open_nursery() as nursery:
            await nursery.start(writer.run)
            await use(writer)
            nursery.cancel_scope.cancel()
    finally:
        store.close()


async def saturated(folder: Path, seconds: float) -> Figures:
    """Results a second when as many tasks as the queue holds commit one after another."""
    rng = random.Random(1)
    ready = [make_result(number, rng) for number in range(int(40_000 * seconds))]
    total = len(ready)
    gc.collect()
    gc.freeze()  # a server would not hold them all, nor look through them again and again
    done = 0
    wall = cpu = 0.0

    async def use(writer: Writer) -> None:
        nonlocal wall, cpu

        async def commit() -> None:
            nonlocal done
            while ready and trio.current_time() < end:
                await writer.commit(ready.pop())
                done += 1

        cpu, started = time.process_time(), time.perf_counter()
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(commit)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu

    await _with_writer(folder, use)
    return {
        "results_per_s": round(done / wall),
        "cpu_us_per_result": round(cpu / max(1, done) * 1e6, 1),
        "ran_out": done == total,
    }


async def paced(folder: Path, seconds: float, rate: float) -> Figures:
    """How long a commit takes, from the moment that it is due, `rate` of them a second."""
    rng = random.Random(2)
    ready = [make_result(number, rng) for number in range(int(rate * seconds))]
    taken: list[float] = []

    async def use(writer: Writer) -> None:
        async def commit(result: Result, due: float) -> None:
            await writer.commit(result)
            taken.append(trio.current_time() - due)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, result in enumerate(ready):
                due = start + number / rate
                await trio.sleep_until(due)
                nursery.start_soon(commit, result, due)

    await _with_writer(folder, use)
    return {"rate": rate, **quantiles(taken, "commit")}


async def pipeline(folder: Path, seconds: float) -> Figures:
    """Whole generations a second: accepted on the disk, tokens journalled, result stored."""
    rng = random.Random(3)
    done = 0
    async with trio.open_nursery() as nursery:
        storage = Storage(folder)
        await nursery.start(storage.run)
        end = trio.current_time() + seconds

        async def generate() -> None:
            nonlocal done
            while trio.current_time() < end:
                result = make_result(done, rng)
                kept = storage.start(
                    Opened(generation=result.id, request=result.request, created=result.created)
                )
                await storage.accepted(kept)
                kept.append(result.log.pieces, result.log.ids)
                await storage.written()
                ended = Ended(state="done", model=result.model, timings=result.timings)
                await storage.finish(kept, ended, result.log)
                done += 1

        started = time.perf_counter()
        async with trio.open_nursery() as inner:
            for _ in range(256):
                inner.start_soon(generate)
        wall = time.perf_counter() - started
        nursery.cancel_scope.cancel()
    return {"generations_per_s": round(done / wall)}


async def journal(folder: Path, seconds: float, *, together: bool) -> Figures:
    """Tokens at STREAMS x RATE a second, journalled and not, in turns.

    Together: all streams' tokens come at once and are one write, as after a llama-server's decode
    step. Otherwise each comes alone, and is a write.
    """
    cpu = {False: 0.0, True: 0.0}
    wall = {False: 0.0, True: 0.0}
    added: list[float] = []
    behind: list[float] = []
    tokens = 0
    book = Journal(folder)
    book.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        logs = [
            book.start(Opened(generation=f"g{n}", request={"prompt": "x" * 200}))
            for n in range(STREAMS)
        ]
        for log in logs:
            log.follow()
        await book.sync()
        before = book.stats.bytes
        written: dict[JournalEntry, list[tuple[int, float]]] = {log: [] for log in logs}
        unwritten: dict[JournalEntry, list[tuple[int, float]]] = {log: [] for log in logs}
        ignored: list[float] = []

        async def follow() -> None:
            while True:
                grown = await book.progressed()
                now = time.perf_counter()
                for log in grown:
                    waiting = written[log]
                    while waiting and waiting[0][0] <= log.durable:
                        behind.append(now - waiting.pop(0)[1])

        nursery.start_soon(follow)
        groups = [logs] if together else [[log] for log in logs]
        for turn in range(6):
            on = turn % 2 == 1
            start_cpu, start = time.process_time(), trio.current_time()
            ticks = 0
            while (due := start + ticks / (RATE * len(groups))) < start + seconds / 6:
                await trio.sleep_until(due)
                began = time.perf_counter()
                for log in groups[ticks % len(groups)]:
                    if on:
                        log.append([" token"], [31_999])
                if on:
                    book.write()
                now = time.perf_counter()
                # What keeps count is done in both turns, so that it is in neither's favour.
                (added if on else ignored).append(now - began)
                for log in groups[ticks % len(groups)]:
                    tokens += on
                    (written if on else unwritten)[log].append((log.count, now))
                ticks += 1
            wall[on] += trio.current_time() - start
            cpu[on] += time.process_time() - start_cpu
        await book.sync()
        size = book.stats.bytes - before
        nursery.cancel_scope.cancel()
    each = 1 if not together else STREAMS
    return {
        "tokens": tokens,
        "bytes_per_token": round(size / tokens, 1),
        "cpu_points": round(100 * (cpu[True] / wall[True] - cpu[False] / wall[False]), 2),
        "cpu_us_per_token": round(
            (cpu[True] - cpu[False] * wall[True] / wall[False]) / tokens * 1e6, 2
        ),
        "tokens_per_write": each,
        **quantiles(added, "added"),
        **quantiles(behind, "durable_behind"),
    }


def prune(folder: Path, count: int, say: Callable[[str], None]) -> Figures:
    """Delete half of `count` results, while single results are committed beside it."""
    rng = random.Random(4)
    store = SqliteStore(folder, write=True)
    filled = time.perf_counter()
    for first in range(0, count, 256):
        store.put([make_result(n, rng) for n in range(first, min(count, first + 256))])
        store.checkpoint()
        if first % 12_800 == 0:
            say(f"prune: {first} of {count} results stored")
    while store.update_index():
        pass
    filled = time.perf_counter() - filled
    say("prune: deleting half of them")
    cut = make_result(count // 2, rng).created
    steps: list[Step] = []
    problems: list[BaseException] = []
    stop = threading.Event()

    def delete() -> None:
        try:
            pruner = SqliteStore(folder, write=True)
            for step in pruner.prune(Retention(before=cut)):
                steps.append(step)
                if stop.is_set():
                    break
            pruner.close()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=delete)
    started = time.perf_counter()
    thread.start()
    taken = []
    number = count
    try:
        while thread.is_alive():
            began = time.perf_counter()
            store.put([make_result(number, rng)])
            taken.append(time.perf_counter() - began)
            store.checkpoint()
            number += 1
            time.sleep(0.002)
    finally:  # interrupted, the thread must not go on
        stop.set()
        thread.join()
    wall = time.perf_counter() - started
    store.close()
    if problems:
        raise problems[0]
    return {
        "results": count,
        "fill_s": round(filled, 1),
        "deleted": sum(step.results for step in steps),
        "steps": len(steps),
        "prune_s": round(wall, 1),
        "longest_block_ms": round(max(step.blocked for step in steps) * 1e3, 2),
        **quantiles(taken, "commit_beside"),
    }
