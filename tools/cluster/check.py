"""Checks that every acknowledged result is in the database, once, and stays unaltered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Container, Set
from contextlib import closing

import psycopg
import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.store import PostgresStore
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Query
from tools.campaign.ledger import Ledger, differs, digest
from tools.campaign.server import environment

#: States of results that no client may have got: they got an error.
UNTOLD = frozenset({"failed", "interrupted"})
#: Tables that must be empty once everything is over, and what a row there means.
_LEFT = {"generations": "is not over"}


async def check_new(url: str, ledger: Ledger) -> bool:
    """Look for each result that was acknowledged since the last call; whether that could be done.

    What was acknowledged must be in the database already, whoever has been killed meanwhile.
    """
    new = dict(ledger.new)
    if not new:
        return True
    try:
        found = await trio.to_thread.run_sync(_results, url, list(new))
    except StorageError:
        return False
    for id_, receipt in new.items():
        result = found.get(id_)
        what = f"{receipt.job.kind}/{receipt.job.flavour}, {receipt.reason}"
        if result is None:
            ledger.violation(f"{id_} ({what}): acknowledged, and not in the store")
        elif (difference := differs(receipt, result)) is not None:
            ledger.violation(f"{id_} ({what}): stored, but {difference}")
        else:
            ledger.counts["found in the store"] += 1
        now = b"" if result is None else digest(result)
        if ledger.kept.get(id_, now) != now:
            ledger.violation(f"{id_}: altered since it was acknowledged")
        ledger.kept[id_] = now
        if ledger.new.get(id_) is receipt:
            del ledger.new[id_]
    return True


def _results(url: str, ids: list[str]) -> dict[str, Result]:
    with closing(PostgresStore(url)) as store:
        return {id_: result for id_ in ids if (result := store.get(id_)) is not None}


async def check_all(
    url: str,
    ledger: Ledger,
    ended: Container[str],
    lines: Set[str] = frozenset(),
    failed: Set[str] = frozenset(),
) -> None:
    """Look at everything once more, after all servers have ended.

    Args:
        ended: generations whose clients got an error that was allowed.
        lines: keys of the lines of batches, each of which must have been done.
        failed: those of them that may not have been.
    """
    if not await check_new(url, ledger):
        ledger.violation("the store cannot be read")
        return
    stored = await trio.to_thread.run_sync(_everything, url)
    for id_, was in ledger.kept.items():
        found = stored.get(id_)
        if found is None:
            ledger.violation(f"{id_}: acknowledged, and not in the store at the end")
        elif was and found[0] != was:
            ledger.violation(f"{id_}: altered since it was acknowledged")
        else:
            ledger.counts["unaltered at the end"] += 1
            ledger.counts["spliced results"] += found[1] > 0
            ledger.counts["splices"] += found[1]
    done = Counter(key for _, _, state, key in stored.values() if key in lines and state == "done")
    ledger.counts["batch lines in the store"] = len(done)
    for key in sorted(lines - done.keys() - failed)[:5]:
        ledger.violation(f"line {key} of a batch is over, and not in the store")
    for id_ in stored.keys() - ledger.kept.keys():
        if (state := stored[id_][2]) in UNTOLD or id_ in ended or stored[id_][3] in done:
            ledger.counts[f"{state} and not acknowledged"] += stored[id_][3] not in done
        else:
            ledger.violation(f"{id_}: in the store, {state}, and no client knows of it")
    ledger.counts["stored"] = len(stored)
    for what in await trio.to_thread.run_sync(_left, url):
        ledger.violation(what)
    checked, problems = await trio.to_thread.run_sync(_verify, url)
    ledger.counts["contents verified"] = checked
    for problem in problems:
        ledger.violation(f"llcuda results verify: {problem}")


def _everything(url: str) -> dict[str, tuple[bytes, int, str, str | None]]:
    """The digest, the number of continuations, the state and the key of every result."""
    with closing(PostgresStore(url)) as store:
        return {
            one.id: (digest(one), len(one.continuations), one.state, one.key)
            for one in store.export(Query(limit=None))
        }


def _left(url: str) -> list[str]:
    """What the tables say of generations that are not over, and of keys that ran twice."""
    out = []
    with psycopg.connect(url, autocommit=True) as db:
        for table, what in _LEFT.items():
            rows = db.execute(f"SELECT * FROM llcuda.{table} LIMIT 5").fetchall()
            out += [f"{table}: {row} {what}" for row in rows]
        twice = db.execute(
            "SELECT owner, key, array_agg(id) FROM llcuda.results"
            " WHERE key IS NOT NULL AND state = 'done' GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5"
        ).fetchall()
        for owner, key, ids in twice:
            found = _results(url, ids).values()
            each = [f"{one.id} at {one.level}, finished {one.finished}" for one in found]
            out.append(f"one key of {owner} ran more than once: {key}: {'; '.join(each)}")
    return out


def _verify(url: str) -> tuple[int, list[str]]:
    """The output of `llcuda results verify`: contents that it checked, and problems."""
    command = [sys.executable, "-m", "llcuda_net.cli.main", "results", "verify", "--json"]
    ended = subprocess.run(
        [*command, "--store", url],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    try:
        found = json.loads(ended.stdout)
        return int(found["checked"]), [str(problem) for problem in found["problems"]]
    except (ValueError, KeyError, TypeError):
        return 0, [ended.stderr.strip() or f"it said nothing, exit code {ended.returncode}"]
