"""What the store lacks, has altered or should not have is noticed."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.campaigns import job, result
from tools.campaign import store_check
from tools.campaign.ledger import Ledger, Receipt


async def test_what_is_missing_altered_or_unknown_in_the_store_is_noticed(tmp_path: Path) -> None:
    ask = job()
    store = SqliteStore(tmp_path, write=True)
    store.put([result(ask, id=name) for name in ("kept", "altered", "unknown")])
    store.close()
    ledger = Ledger()
    ledger.new = {name: Receipt(ask, "length", 4, []) for name in ("kept", "altered", "missing")}
    await store_check.check_new(tmp_path, ledger)
    assert ledger.violations == ["missing: acknowledged, and not in the store"]
    ledger = Ledger()
    ledger.new = {name: Receipt(ask, "length", 4, []) for name in ("kept", "altered")}
    await store_check.check_new(tmp_path, ledger)
    assert (ledger.violations, ledger.counts["found in the store"]) == ([], 2)
    ledger.kept["altered"] = ledger.kept["altered"][::-1]
    await store_check.check_all(tmp_path, ledger)
    assert sorted(ledger.violations) == [
        "altered: altered since it was acknowledged",
        "unknown: in the store, and no client knows of it",
    ]
    assert ledger.counts["contents verified"] > 0
