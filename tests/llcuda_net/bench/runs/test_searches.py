"""One point of a curve of searches, by one rank; tests/mpi has several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llcuda_kernels import VectorStore
from llcuda_net.batch.mpi import Communicator
from llcuda_net.bench.report import document, scaling, scaling_page
from llcuda_net.bench.runs import curve, searches
from llcuda_net.bench.runs.searches import Search
from llcuda_net.errors import ConfigError


def test_strong_scaling_shares_the_vectors_out() -> None:
    search = Search(rows=5, mode="strong")
    assert [search.share(rank, 3) for rank in range(3)] == [2, 2, 1]
    assert Search(rows=5).share(2, 3) == 5
    with pytest.raises(ConfigError, match="5 rows cannot be shared out over 6 ranks"):
        search.share(0, 6)


async def test_one_rank_searches_its_vectors() -> None:
    found = await searches.point(
        Communicator(), Search(rows=40, dim=8, queries=2, k=3, seconds=0.02, warmup=0.0)
    )
    assert found is not None
    assert (found["ranks"], found["vectors"], found["problems"]) == (1, 40, [])
    rate = found["searches_per_s"]["value"]
    assert found["vectors_per_s"]["value"] == pytest.approx(40 * rate)
    assert found["metrics"]["search"]["count"] >= 3


async def test_a_search_that_misses_its_vector_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(self: VectorStore, queries: Any, k: int) -> Any:
        return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)

    monkeypatch.setattr(VectorStore, "search", nothing)
    found = await searches.point(
        Communicator(), Search(rows=4, dim=8, k=1, seconds=0.01, warmup=0.0)
    )
    assert found is not None
    assert found["problems"] == [
        "1 ranks, rank 0: a search for one of the vectors found 0.000 at best"
    ]


async def test_nccl_without_a_gpu_is_told_before_anything_is_made() -> None:
    search = Search(rows=1 << 60, gather="nccl")
    with pytest.raises(ConfigError, match="rank 0: --gather nccl needs "):
        await searches.point(Communicator(), search)


def made(ranks: int, seconds: float) -> dict[str, Any]:
    """A point as ranks would give it."""
    each = [
        {"rank": rank, "host": "h", "device": "GPU", "cores": 8, "rows": 60 // ranks,
         "cpu_share": 0.1, "problems": []}
        for rank in range(ranks)
    ]  # fmt: skip
    blocks = [[seconds] * 4, [seconds * 1.01] * 4, [seconds * 0.99] * 4]
    return {**searches.together(each, blocks), "mpi": {}, "library": "MPI 5"}


def test_a_curve_of_searches_has_speedups_laws_and_a_table() -> None:
    asked = {"mode": "strong", "dim": 8, "queries": 1, "k": 3, "gather": "nccl"}
    whole = document.begin("t", [], 1, asked)
    points = [made(n, 1e-3 * (0.1 + 0.9 / n)) for n in (1, 2, 3, 4) for _ in range(3)]
    curve.fill(whole, points, "ranks", searches.RATE["strong"])
    assert whole["rate"] == "searches_per_s"
    assert whole["rows"][1]["speedup"]["value"] == pytest.approx(1 / 0.55, rel=1e-3)
    assert whole["rows"][3]["karp_flatt"] == pytest.approx(0.1, rel=1e-3)
    assert len(whole["fits"]) == 3
    assert len(whole["repetitions"]["searches_per_s at 2"]) == 3
    assert whole["cautions"] == []  # those of requests are no limit here
    text = "\n".join(scaling.lines(whole))
    assert "search of 60 x 8 int8, 1 query, k 3, on GPU, gathered by NCCL; MPI 5" in text
    assert "searches/s (95 % interval)" in text
    assert "vectors" in text
    page = scaling_page.page(whole)
    assert page.count("<svg") == 2
    assert "searches/s" in page


def test_ranks_that_compute_share_cores() -> None:
    each = [
        {"rank": rank, "host": "h", "device": "", "cores": 1, "rows": 2, "problems": []}
        for rank in range(2)
    ]
    assert "2 ranks share 1 cores" in searches.together(each, [[1.0]] * 3)["cautions"][0]
