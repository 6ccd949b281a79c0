"""Checks that every acknowledged result is in the store, and stays unaltered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Container
from contextlib import closing
from pathlib import Path

import trio

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tools.campaign.ledger import Ledger, differs, digest
from tools.campaign.server import environment


async def check_new(folder: Path, ledger: Ledger) -> None:
    """Look for each result that was acknowledged since the last call.

    Call it while the server is dead, before the next one can repair anything: what was acknowledged
    must be in the store already.
    """
    new = dict(ledger.new)
    if not new:
        return
    try:
        found = await trio.to_thread.run_sync(_results, folder, list(new))
    except StorageError as error:
        ledger.violation(f"the store cannot be read: {error}")
        return
    for id_, receipt in new.items():
        result = found.get(id_)
        if result is None:
            ledger.violation(f"{id_}: acknowledged, and not in the store")
        elif (difference := differs(receipt, result)) is not None:
            what = f"{receipt.job.kind}/{receipt.job.flavour}, {receipt.reason}"
            ledger.violation(f"{id_} ({what}): stored, but {difference}")
        else:
            ledger.counts["found in the store"] += 1
        ledger.kept[id_] = b"" if result is None else digest(result)
        del ledger.new[id_]


def _results(folder: Path, ids: list[str]) -> dict[str, Result]:
    with closing(SqliteStore(folder)) as store:
        return {id_: result for id_ in ids if (result := store.get(id_)) is not None}


async def check_all(folder: Path, ledger: Ledger, unknown: Container[str] = ()) -> None:
    """Look at everything once more, after the last server has ended.

    Each acknowledged result must be as it was; there must be no other, which would be a request
    that was started twice; and every content hash must be right.

    Args:
        unknown: states in which other results are allowed.
    """
    await check_new(folder, ledger)
    stored = await trio.to_thread.run_sync(_everything, folder)
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
    for id_ in stored.keys() - ledger.kept.keys():
        if (state := stored[id_][2]) in unknown:
            ledger.counts[f"{state} and not acknowledged"] += 1
            continue
        ledger.violation(f"{id_}: in the store, and no client knows of it")
    ledger.counts["stored"] = len(stored)
    checked, problems = await trio.to_thread.run_sync(_verify, folder)
    ledger.counts["contents verified"] = checked
    for problem in problems:
        ledger.violation(f"llcuda results verify: {problem}")


def _everything(folder: Path) -> dict[str, tuple[bytes, int, str]]:
    """The digest, the number of continuations and the state of every result."""
    with closing(SqliteStore(folder)) as store:
        return {
            r.id: (digest(r), len(r.continuations), r.state)
            for r in store.export(Query(limit=None))
        }


def _verify(folder: Path) -> tuple[int, list[str]]:
    """The output of `llcuda results verify`: contents that it checked, and problems."""
    command = [sys.executable, "-m", "llcuda_net.cli.main", "results", "verify", "--json"]
    ended = subprocess.run(
        [*command, "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    try:
        found = json.loads(ended.stdout)
        problems = [str(problem) for problem in found["problems"]]
        checked = int(found["checked"])
    except (ValueError, KeyError, TypeError):
        return 0, [ended.stderr.strip() or f"it said nothing, exit code {ended.returncode}"]
    if ended.returncode and not problems:
        problems = [f"exit code {ended.returncode}"]
    return checked, problems
