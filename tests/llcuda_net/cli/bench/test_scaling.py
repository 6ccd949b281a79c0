"""`llcuda bench scaling`, with ranks that it starts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.llcuda_net.cli.bench.conftest import QUICK, Bench, came_through


def test_ranks_are_started_and_added_up(upstream: str, bench: Bench) -> None:
    code, found, said = bench(
        "scaling", "--sweep", "2", "--target", upstream, "--inflight", "3", "--seconds", "0.4",
        "--repeats", "1", *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    (two,) = found["rows"]
    assert (two["ranks"], two["inflight"]) == (2, 6)
    assert two["tokens_per_s"]["value"] == pytest.approx(
        sum(each["tokens_per_s"]["value"] for each in two["each"]), rel=0.05
    )
    assert two["mpi"]["allreduce of 8 bytes"] > 0
    assert found["fits"] == []
    assert "4 are needed" in found["fits_why"]


@pytest.mark.slow
def test_a_sweep_of_ranks(tmp_path: Path, upstream: str, bench: Bench) -> None:
    page = tmp_path / "s.html"
    code, found, said = bench(
        "scaling", "--sweep", "1,2,3,4", "--target", upstream, "--inflight", "3", "--seconds", "1",
        "--repeats", "2", "--html", str(page), *QUICK,
    )  # fmt: skip
    came_through(code, found, said)
    assert [row["ranks"] for row in found["rows"]] == [1, 2, 3, 4]
    assert found["rows"][1]["speedup"]["value"] > 0
    assert [each["law"] for each in found["fits"]] == ["Amdahl", "Gustafson", "universal"]
    assert page.read_text().count("<svg") == 2


def test_one_rank_that_searches(bench: Bench) -> None:
    code, found, said = bench(
        "scaling", "--work", "search", "--rows", "30", "--dim", "8", "--k", "2",
        "--seconds", "0.02", "--warmup", "0",
    )  # fmt: skip
    came_through(code, found, said)
    assert found["rate"] == "vectors_per_s"
    assert (found["settings"]["work"], found["settings"]["rows"]) == ("search", 30)
    assert "search of 30 x 8 int8, 1 query, k 2, on the CPU, gathered by MPI" in said


def test_what_is_wrong_is_one_line(bench: Bench) -> None:
    for arguments, said in (
        (["--start", "demo"], "--start goes with --sweep"),
        (["--sweep", "1,2", "--over", "servers", "--target", "a:1"], "needs as many"),
        (["--sweep", "2,1"], "must be rising numbers"),
        (["--rows", "10"], "--rows goes with --work search"),
        (["--work", "search", "--target", "a:1"], "--target does not go with --work search"),
        (["--work", "search", "--max-lag", "2s"], "--max-lag does not go with --work search"),
        (["--work", "search", "--over", "servers"], "--over servers does not go with"),
        (["--work", "search", "--k", "5000"], "--k must be at most 1024, not 5000"),
    ):
        code, _, text = bench("scaling", *arguments)
        assert code == 2
        assert said in text
        assert len(text.splitlines()) == 1
