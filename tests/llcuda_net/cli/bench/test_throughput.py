"""`llcuda bench throughput`, on runs too short to say how much."""

from __future__ import annotations

from pathlib import Path

from tests.llcuda_net.cli.bench.conftest import QUICK, Bench


def test_against_concurrency_and_rate(tmp_path: Path, upstream: str, bench: Bench) -> None:
    page = tmp_path / "t.html"
    code, found, said = bench(
        "throughput", "--target", upstream, "--concurrency", "2,16", "--rates", "20,40",
        "--seconds", "0.3", "--rounds", "1", "--slo", "ttft=5s,tpot=1s", "--html", str(page),
        *QUICK,
    )  # fmt: skip
    assert code in (0, 1), said  # on a busy machine INVALID
    assert [row["load"] for row in found["concurrency"]] == [2, 16]
    assert [row["load"] for row in found["rates"]] == [20, 40]
    assert any("8 slots" in text for text in found["cautions"])
    assert found["settings"]["slo"] == {"ttft": 5.0, "tpot": 1.0}
    assert page.read_text().count("<svg") >= 2


def test_rates_are_numbers_auto_or_none(bench: Bench) -> None:
    code, _, said = bench("throughput", "--rates", "2,1")
    assert code == 2
    assert "must be rising numbers above 0, such as 1,2,4, or auto, or none" in said
