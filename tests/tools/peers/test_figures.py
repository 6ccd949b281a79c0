"""Figures of the server's record, and the tables."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tools.peers import report, tokenizer
from tools.peers.cases import CASES
from tools.peers.figures import NAMES, Recorded, Said, dispersion, error, figures, recorded
from tools.peers.runs import Run


def row(arrived: float, **more: float | None) -> dict[str, Any]:
    names = ("began", "first", "ended", "work", "first_due", "due")
    return {"arrived": arrived, "tokens": 1, **dict.fromkeys(names), **more}


def test_what_was_cut_counts_with_the_time_that_it_would_have_taken() -> None:
    rows = [
        row(0, first=50, ended=60),  # of the warm-up
        row(1, first=1.5, ended=2),
        row(2, first=2.5, first_due=2.5, due=8),
        row(3, first_due=3.5, due=9),
    ]
    found = recorded(rows, 1.0, 3)
    assert (found.arrived, found.rate) == (3, 1.0)
    assert found.latency == {"mean": pytest.approx(13 / 3), "p50": 6, "p90": 6, "p99": 6}
    assert found.ttft["mean"] == pytest.approx(0.5)
    assert found.dispersion is None


def test_what_never_began_leaves_only_the_percentiles_below_it() -> None:
    found = recorded([row(0, first=1, ended=1), row(0, first=2, ended=2), row(0)], 1.0, 3)
    assert found.latency == {"mean": None, "p50": 2, "p90": None, "p99": None}
    assert recorded([], 1.0, 0).latency == dict.fromkeys(NAMES)


def test_figures_are_of_the_nearest_rank() -> None:
    found = figures([float(n) for n in range(100)])
    assert found == {"mean": 49.5, "p50": 49, "p90": 89, "p99": 98}


def test_dispersion_tells_poisson_from_blocks() -> None:
    rng, rate, window = random.Random(1), 8.0, 10 / 8
    poisson: list[float] = [0.0]
    while len(poisson) < 40_000:
        poisson.append(poisson[-1] + rng.expovariate(rate))
    assert dispersion(poisson, window) == pytest.approx(1, abs=0.1)
    blocks = [0.0]
    while len(blocks) < 40_000:  # each gap ten times: the law of a gap is the same
        gap = rng.expovariate(rate)
        blocks += [blocks[-1] + gap * (n + 1) for n in range(10)]
    assert (dispersion(blocks, window) or 0) > 3
    assert dispersion([n / rate for n in range(1000)], window) == pytest.approx(0, abs=0.02)
    assert dispersion([], window) is None


@pytest.mark.parametrize(("rate", "true", "repeated"), [(5.0, 0.2, 0.65), (8.0, 0.5, 2.2)])
def test_what_repeated_gaps_do_to_a_queue(rate: float, true: float, repeated: float) -> None:
    """The figures of docs/benchmarks/peers.md: M/M/1, and each gap ten times in a row."""

    def mean(block: int) -> float:
        rng, now, free, total, count, gap = random.Random(1), 0.0, 0.0, 0.0, 200_000, 0.0
        for number in range(count):
            if number % block == 0:
                gap = rng.expovariate(rate)
            now += gap
            free = max(now, free) + rng.expovariate(10)
            total += free - now
        return total / count

    assert mean(1) == pytest.approx(true, rel=0.05)
    assert mean(10) == pytest.approx(repeated, rel=0.05)


def test_relative_errors() -> None:
    assert error(1.1, 1.0) == pytest.approx(0.1)
    assert error(None, 1.0) is error(1.0, None) is error(1.0, 0.0) is None


def document() -> dict[str, Any]:
    case = next(case for case in CASES if case.name == "mm1-80")
    values: dict[str, float | None] = dict(zip(NAMES, (0.5, 0.35, 1.2, None), strict=True))
    said = Said(480, 3, 0, values, values, 7.9, 126.0, {"latency mean": (0.4, 0.6)}, ["slow"])
    record = Recorded(483, 8.1, 0.95, values, values)
    runs = [
        Run(
            case.name,
            "llcuda",
            ["llcuda", "bench"],
            "2026-01-02T03:04:05+00:00",
            0.5,
            "",
            said,
            record,
        ),
        Run(
            case.name,
            "guidellm",
            ["guidellm", "run"],
            "2026-01-02T03:06:05+00:00",
            2.0,
            "it did not start",
        ),
    ]
    return {
        "machine": {"processor": "P", "cores": 2, "system": "S"},
        "versions": {"llcuda-net": "1", "GuideLLM": "2"},
        "runs": json.loads(json.dumps([run.as_dict() for run in runs])),
    }


def test_the_tables_hold_what_was_said_beside_the_truth() -> None:
    text = report.markdown(document(), CASES)
    assert "2026-01-02 03:04 to 03:06 UTC; llcuda-net 1, GuideLLM 2; P, 2 cores, S." in text
    assert "load average was 0.5 to 2.0" in text
    assert "| llcuda bench | 483 | 480 | 3 | 0 | 8.1 | 0.95 | 7.9 | 126 |" in text
    assert "| llcuda bench | says | 500 (+0.0%; +0.0%) | 350 (+1.0%; +0.0%) |" in text
    assert text.count("## M/M/1 at a load of 0.8") == 1
    assert "M/M/1 at a load of 0.5" not in text  # it was not run
    assert "- GuideLLM gave no figures: it did not start" in text
    assert "- llcuda bench warned: slow" in text
    assert "| llcuda bench | 1 of 1 | none given |" in text
    assert "guidellm run" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_every_case_has_a_truth() -> None:
    for case in CASES:
        assert case.truth["response"], case.name
        assert case.truth["first"], case.name
        assert case.shortened(0.5).seconds == case.seconds / 2


def test_the_tokenizer_has_a_character_for_each_byte(tmp_path: Path) -> None:
    letters = tokenizer.alphabet()
    assert len(set(letters)) == 256
    assert letters[ord("A")] == "A"
    assert letters[ord(" ")] == "\u0120"  # as in GPT-2's vocabulary
    tokenizer.write(tmp_path / "folder")
    written = json.loads((tmp_path / "folder" / "tokenizer.json").read_text("utf-8"))
    assert sorted(written["model"]["vocab"].values()) == list(range(256))
