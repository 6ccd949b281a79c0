"""Stores of any size are filled alike however often it is interrupted, and everything is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tools import bench_growth
from tools.growth import store as growth
from tools.growth.texts import STATES, results, vocabulary


def test_results_are_functions_of_their_number_and_the_seed() -> None:
    assert list(results(1300, 5)) == [*results(200, 5), *results(1100, 5, 200)]
    some = list(results(1500, 5))
    assert some == list(results(1500, 5))
    assert some != list(results(1500, 6))
    assert len({one.id for one in some}) == 1500
    assert {one.state for one in some} == set(STATES)
    lengths = sorted(len(one.log.pieces) for one in some)
    assert lengths[0] < 20 < 80 < lengths[750] < 180 < 500 < lengths[-1]
    the = sum(" the " in f" {one.text} " for one in some)
    assert the > 0.9 * len(some)
    assert len(set(vocabulary())) == len(vocabulary())


def test_a_store_is_filled_and_asked(tmp_path: Path) -> None:
    growth.fill(tmp_path / "a", 200, 3, lambda _: None)
    growth.copied(tmp_path / "a", tmp_path / "b")
    growth.fill(tmp_path / "b", 300, 3, lambda _: None)
    store = SqliteStore(tmp_path / "b")
    assert store.stats().results == 300
    assert store.search_index.lag() == 0
    store.close()
    figures = growth.measure(tmp_path / "b", 300, 3)
    assert all(asked["repeats"] > 0 for asked in figures["asked"].values())
    assert min(figures["inserts_per_s"]) > 0
    store = SqliteStore(tmp_path / "b")
    assert store.stats().results == 300  # what was inserted is gone
    assert len(store.find(Query(limit=None))) == 300
    store.close()


@pytest.mark.slow
def test_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "growth.json"
    arguments = ["--sizes", "150,300", "--tokens", "1000", "--json", str(path)]
    assert bench_growth.main([*arguments, "--dir", str(tmp_path)]) == 0
    document = json.loads(path.read_text())
    assert [one["results"] for one in document["stores"]] == [150, 300]
    assert document["journals"][0]["generations"] == 64
    assert "search, common, ms" in capsys.readouterr().out
    assert bench_growth.main(["--keep", str(tmp_path / "kept"), *arguments, "--fill"]) == 0
    assert (tmp_path / "kept" / "300").is_dir()
