"""`llcuda results verify`, `prune` and `stats`."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.units import iso
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import ODD, Llcuda, damage
from tests.support.storage.records import MODEL, SECOND, START, result


def test_verify(directory: Path, llcuda: Llcuda) -> None:
    done = llcuda("verify")
    assert (done.code, done.err) == (0, "")
    assert done.out == "24 contents, all as they were stored\n"
    (found,) = llcuda("verify", "--json").objects
    assert found == {"ok": True, "checked": 24, "problems": []}
    damage(directory)
    done = llcuda("verify")
    assert done.code == Exit.REFUSED
    assert "result-000007 it is not what was stored: its hash differs" in done.lines
    assert len(done.lines) == 3  # the body, the result that needs it, and the altered one
    assert done.err == "3 problems in 24 contents\n"
    done = llcuda("verify", "--json")
    assert done.code == Exit.REFUSED
    assert "result-000007" in [one["id"] for one in json.loads(done.out)["problems"]]


def test_a_dry_run_deletes_nothing(directory: Path, llcuda: Llcuda) -> None:
    before = llcuda("export").out
    done = llcuda("prune", "--older-than", iso(START + 10 * SECOND))
    assert done.code == 0
    assert done.out.startswith("10 results (")
    assert "nothing was deleted: to do so, add --yes" in done.out
    (found,) = llcuda("prune", "--json", "--older-than", iso(START + 10 * SECOND)).objects
    assert (found["deleted"], found["results"]) == (False, 10)
    assert found["newest"] == iso(START + 9 * SECOND)
    assert "nothing would go" in llcuda("prune", "--max-size", "1TB", "--yes").out
    assert llcuda("export").out == before
    assert directory.exists()


def test_prune_deletes_beside_a_writer(directory: Path, llcuda: Llcuda) -> None:
    writer = SqliteStore(directory, write=True)
    done = llcuda("prune", "--older-than", iso(START + 10 * SECOND), "--yes")
    assert done.code == 0, done.err
    assert done.out.startswith("deleted 10 results (")
    assert len(llcuda("list", "--json").objects) == 13
    (found,) = llcuda("prune", "--max-size", "2kB", "--yes", "--json").objects
    assert found["deleted"]
    left = llcuda("list", "--json").objects
    assert 0 < sum(one["bytes"] for one in left) <= 2000
    assert left[0]["id"] == "result-000042"
    writer.put([result(70)])
    writer.close()
    assert llcuda("verify").code == 0


@pytest.mark.usefixtures("directory")
def test_prune_wants_to_know_what(llcuda: Llcuda) -> None:
    done = llcuda("prune", "--yes")
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "--older-than 30d" in done.err
    assert len(llcuda("list", "--json").objects) == 23


@pytest.mark.usefixtures("directory")
def test_stats(llcuda: Llcuda) -> None:
    (found,) = llcuda("stats", "--json").objects
    assert found["results"] == 23
    assert found["states"] == {"done": 21, "failed": 1, "cancelled": 1}
    assert found["models"][MODEL["name"]] == 22
    assert (found["oldest"], found["newest"]) == (iso(START), iso(START + 42 * SECOND))
    assert sum(day["results"] for day in found["days"]) == 23
    assert found["unindexed"] == 0
    done = llcuda("stats")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].split() == ["results", "23"]
    assert "2023-11-14" in done.out
    assert "\x1b" not in done.out


def test_delete_says_what_would_go_and_deletes_it(directory: Path, llcuda: Llcuda) -> None:
    done = llcuda("delete", ODD)
    assert (done.code, done.lines) == (
        0,
        [f"{ODD} would go; nothing was deleted: to do so, add --yes"],
    )
    assert llcuda("delete", ODD, "--yes").lines == [f"deleted {ODD}"]
    assert llcuda("show", ODD).code == Exit.REFUSED
    assert llcuda("delete", ODD, "--yes").code == Exit.REFUSED
    assert llcuda("search", "reader", "--json").out == ""
    assert llcuda("delete", "result-000003", "--yes", "--json").objects == [
        {"deleted": True, "id": "result-000003"}
    ]
    assert llcuda("verify").code == Exit.OK


def test_what_a_store_logs_is_not_printed(directory: Path, llcuda: Llcuda) -> None:
    db = apsw.Connection(str(directory / "results.db"))
    db.execute("DELETE FROM migrations WHERE number = 3")  # as version 2 has left it
    db.execute("DROP TABLE zones; DROP TABLE owner_zones; DROP TRIGGER results_removed")
    db.execute("DROP INDEX results_listed; DROP INDEX results_owned; DROP INDEX results_cache")
    db.execute(
        "CREATE INDEX results_model ON results (model, created);"
        "CREATE INDEX results_owner ON results (owner, created) WHERE owner != '';"
        "CREATE INDEX results_state ON results (state, created) WHERE state != 'done';"
        "CREATE INDEX results_cache ON results (request_hash, model) WHERE cacheable = 1"
    )
    db.close()
    (found,) = llcuda("prune", "--json", "--yes", "--max-size", "1").objects
    assert found["deleted"] is True
