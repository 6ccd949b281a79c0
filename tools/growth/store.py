"""Fills stores of any size, and measures what is asked of them."""

from __future__ import annotations

import random
import shutil
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from llcuda_net.storage.results import search_index
from llcuda_net.storage.results.interface import Query, Retention
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS, SqliteStore
from llcuda_net.util.process_memory import resident
from tools.growth.texts import COMMON, results

#: Results in one transaction of the filling; and seconds and results of a step of its indexing.
_BATCH, _STEP, _STEP_RESULTS = 2000, 1.0, 4096
#: Results that are inserted to be measured, in transactions of so many, and deleted again.
_INSERTED, _INSERT_BATCH = 1024, 256
#: Times that each question is asked, most seconds for it, and rows of a list.
REPEATS, _LONGEST, _PAGE = 21, 3.0, 50

Say = Callable[[str], None]
Figures = dict[str, Any]


def fill(folder: Path, count: int, seed: int, say: Say) -> None:
    """Bring a store to this many results, all of them indexed. What is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(folder, write=True)
    try:
        # Whoever loses power meanwhile fills again.
        store._db.execute("PRAGMA synchronous = OFF")
        there = store.reached()
        rest = results(count - there, seed, there)
        while batch := list(islice(rest, _BATCH)):
            store.put(batch)
            store.checkpoint()
            there += len(batch)
            say(f"filling: {there:,} of {count:,} results stored")
        step = search_index._STEP, search_index._STEP_RESULTS
        search_index._STEP, search_index._STEP_RESULTS = _STEP, _STEP_RESULTS
        try:
            while store.update_index():
                say(f"filling: {store.search_index.lag():,} of {count:,} results to be indexed")
        finally:
            search_index._STEP, search_index._STEP_RESULTS = step
    finally:
        store.close()


def copied(source: Path, target: Path) -> None:
    """A store to go on with, from one that nobody uses."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, DERIVED):
        shutil.copyfile(source / name, target / name)


def questions(store: SqliteStore, count: int, seed: int) -> dict[str, Callable[[], Any]]:
    """What is asked of a store, by name; rare values and common ones."""
    rng = random.Random(seed)
    some = [
        store._db.execute("SELECT id FROM results WHERE seq = ?", (rng.randint(1, count),)).get
        for _ in range(200)
    ]

    def any_id() -> str:
        return str(rng.choice(some))

    def first(query: Query, words: str | None = None) -> list[Any]:
        return list(islice(store.walk(query, words), _PAGE))

    the, time_, *_ = COMMON.split()[0], "time"
    return {
        "get": lambda: store.get(any_id()),
        "list": lambda: store.find(Query()),
        "list, deep": lambda: store.find(Query(after=any_id())),
        "list, rare state": lambda: store.find(Query(states=["interrupted"])),
        "list, two states": lambda: store.find(Query(states=["failed", "cancelled"])),
        "list, owner": lambda: store.find(Query(owner="user-03", after=any_id())),
        "list, owner, state, model": lambda: store.find(
            Query(owner="user-15", states=["failed"], model="model-5")
        ),
        "status: backlog": lambda: store.analyses.lag(0),
        "status: backlog, owner": lambda: store.analyses.lag(rng.randrange(count), "user-00"),
        "search, common": lambda: store.search(the, Query()),
        "search, two common": lambda: store.search(f"{the} {time_}", Query()),
        "search, phrase": lambda: store.search(f'"{the} {time_}"', Query()),
        "search, re*": lambda: store.search("re*", Query()),
        "search, r*": lambda: store.search("r*", Query()),
        "search, ther*": lambda: store.search("ther*", Query()),
        "search, state": lambda: store.search(the, Query(states=["failed"])),
        "search, nothing": lambda: store.search("nowhere", Query()),
        "list, words": lambda: first(Query(), the),
        "export, first page": lambda: list(islice(store.export(Query(limit=None)), _PAGE)),
        "retention": lambda: next(store.prune(Retention(before=0)), None),
        "stats": store.stats,
    }


def measure(folder: Path, count: int, seed: int) -> Figures:
    """Ask a store everything, several times; in a process of its own, for the memory."""
    before = resident()
    started = time.perf_counter()
    store = SqliteStore(folder, write=True)
    opened = time.perf_counter() - started
    out: Figures = {"results": count, "open_ms": round(opened * 1e3, 3), "asked": {}}
    for name, ask in questions(store, count, seed).items():
        ask()
        taken: list[float] = []
        while len(taken) < REPEATS and sum(taken) < _LONGEST * 1e3:
            started = time.perf_counter()
            ask()
            taken.append((time.perf_counter() - started) * 1e3)
        out["asked"][name] = {
            "p50_ms": round(statistics.median(taken), 3),
            "least_ms": round(min(taken), 3),
            "most_ms": round(max(taken), 3),
            "repeats": len(taken),
        }
    for name in (RESULTS, DERIVED):
        key = f"{name.removesuffix('.db')}_bytes_per_result"
        out[key] = round((folder / name).stat().st_size / count)
    out["inserts_per_s"] = _inserted(store, count, seed)
    out["memory_bytes"] = resident() - before
    store.close()
    return out


def _inserted(store: SqliteStore, count: int, seed: int) -> list[int]:
    """Results committed a second, batch by batch; the store is afterwards as it was."""
    there = store.reached()
    new = list(results(_INSERTED, seed + 1, there))
    rates = []
    for first in range(0, len(new), _INSERT_BATCH):
        batch = new[first : first + _INSERT_BATCH]
        started = time.perf_counter()
        store.put(batch)
        rates.append(round(len(batch) / (time.perf_counter() - started)))
        store.checkpoint()
    for one in new:
        store.delete(one.id)
    return rates
