"""The soak: what grows is told from what does not, and a few seconds of it run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from llcuda_net.config.token_file import Users
from tests.support.campaigns import conducted, long_enough
from tools import soak_campaign
from tools.load.streams import LlcudaConnection
from tools.soak import plot
from tools.soak.campaign import JUDGED, Outcome, Plan
from tools.soak.load import Load, UserRequest
from tools.soak.samples import Sample
from tools.soak.trend import FEWEST, Allowance, theil_sen, trend
from tools.soak.users import (
    LONGEST,
    PEOPLE,
    SHORTEST,
    Arrival,
    arrivals,
    capacity,
    mean_tokens,
    token_file,
)

HOUR = [10.0 * n for n in range(1, 361)]


def noisy(slope: float, seed: int = 1) -> list[float]:
    """100 in the mean, with outliers, and so much more an hour."""
    rng = random.Random(seed)
    return [
        100 + slope * t / 3600 + rng.gauss(0, 3) + (500 if rng.random() < 0.02 else 0) for t in HOUR
    ]


# -- slopes -------------------------------------------------------------------------------------


def test_the_slope_is_that_of_a_line_whatever_a_few_points_say() -> None:
    x = np.arange(20.0)
    y = 3 * x + 1
    assert theil_sen(x, y) == pytest.approx((3, 3, 3))
    y[4] = y[15] = 1e6
    slope, low, high = theil_sen(x, y)
    assert slope == pytest.approx(3, abs=0.2)
    assert low <= slope <= high
    assert theil_sen(x[:1], y[:1]) == (0.0, 0.0, 0.0)


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    rng, x = np.random.default_rng(1), np.arange(40.0)
    held = 0
    for _ in range(400):
        _, low, high = theil_sen(x, 0.1 * x + rng.normal(size=40))
        held += bool(low <= 0.1 <= high)
    assert 0.92 < held / 400 < 0.98


@pytest.mark.parametrize("seed", range(5))
def test_what_grows_is_told_from_what_does_not(seed: int) -> None:
    allowance = Allowance(0.05, 1.0)
    assert trend(HOUR, noisy(0.0, seed), allowance).verdict == "flat"
    assert trend(HOUR, noisy(-30.0, seed), allowance).verdict == "flat"
    grown = trend(HOUR, noisy(30.0, seed), allowance)
    assert grown.verdict == "grows"
    assert grown.slope == pytest.approx(30, abs=6)


def test_the_beginning_does_not_count() -> None:
    values: list[float | None] = [min(100.0, t) for t in HOUR]
    assert trend(HOUR, values, Allowance(0.0, 1.0)).verdict == "flat"
    rises: list[float | None] = [min(1800.0, t) for t in HOUR]
    assert trend(HOUR, rises, Allowance(0.0, 1.0)).verdict == "grows"
    assert trend(HOUR, rises, Allowance(0.0, 1.0, warm_up=0.5)).verdict == "flat"


def test_too_little_is_undecided() -> None:
    assert trend(HOUR[:4], [1.0] * 4, Allowance(0.1, 1)).verdict == "undecided"
    assert trend([], [], Allowance(0.1, 1)).verdict == "undecided"
    assert trend(HOUR, [None] * len(HOUR), Allowance(0.1, 1)).verdict == "undecided"
    wide = [100.0 + (50 if n % 2 else -50) for n in range(12)]
    judged = trend(HOUR[:12], wide, Allowance(0.0, 1.0))
    assert judged.points >= FEWEST
    assert judged.verdict == "undecided"


# -- the load -----------------------------------------------------------------------------------


def test_arrivals_follow_from_the_seed_at_the_rate_that_was_asked_for() -> None:
    drawn = list(arrivals(random.Random(1), 5.0, 2000))
    assert drawn == list(arrivals(random.Random(1), 5.0, 2000))
    assert drawn != list(arrivals(random.Random(2), 5.0, 2000))
    assert len(drawn) == pytest.approx(10_000, rel=0.04)
    gaps = np.diff([arrival.at for arrival in drawn])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    tokens = [arrival.tokens for arrival in drawn]
    assert min(tokens) >= SHORTEST
    assert max(tokens) <= LONGEST
    assert np.mean(tokens) == pytest.approx(mean_tokens(), rel=0.03)
    for person in PEOPLE:
        share = sum(arrival.person is person for arrival in drawn) / len(drawn)
        assert share == pytest.approx(person.share, abs=0.03)


def test_half_load_is_half_of_what_the_slots_sustain() -> None:
    assert capacity(10, 20.0, 0.5) == pytest.approx(10 / (0.5 + (mean_tokens() - 1) / 20))
    plan = Plan(1, 60.0)
    whole = capacity(plan.upstreams * plan.slots, plan.rate, plan.first_token)
    assert plan.requests_per_second == pytest.approx(whole / 2)


def test_the_token_file_names_its_users() -> None:
    users = Users.parse(token_file())
    for person in PEOPLE:
        found = users.find(person.token)
        assert found is not None
        assert (found.name, found.weight, found.admin) == (person.name, person.weight, False)


def test_a_wrong_answer_an_error_and_a_hang_are_failures() -> None:
    load = Load("127.0.0.1:1", 1)
    arrival = Arrival(0.0, PEOPLE[0], 16, goes_on=False, anew=False, cancelled=False)

    def request() -> UserRequest:
        made = UserRequest(load, arrival, "alice asks: ", cast("LlcudaConnection", None), 1.0)
        load.running.add(made)
        return made

    right, short, refused = request(), request(), request()
    right.came(2, 1_500_000_000)
    right.came(14, 2_000_000_000)
    right.end(16, "length")
    assert (load.window.first, load.window.intervals) == ([0.5], [0.0, 0.5, *[0.0] * 13])
    assert (load.window.tokens, load.counts["length"], load.counts["failed"]) == (16, 1, 0)
    short.came(15, 1_500_000_000)
    short.end(15, "length")
    refused.failed("the server said overloaded: too much")
    refused.failed("not over within 120 s")
    assert load.counts["failed"] == 2
    assert load.errors == [
        "alice: 15 tokens came, 15 reported, 16 requested",
        "alice: the server said overloaded: too much",
    ]
    assert load.running == set()


# -- whole soaks --------------------------------------------------------------------------------


def outcome(growth: float = 0.0) -> Outcome:
    found = Outcome(Plan(1, 3600.0))
    for t in HOUR:
        more = int(growth * t / 3600)
        found.samples.append(
            Sample(
                t, (60 << 20) + more, 40, 5, 0.2, 0.3, 0.9, 0.1, 0.2, 0.04, 0.06, 50, 900, 11, 1, 2
            )
        )
    return found


def test_an_outcome_is_well_where_all_is_flat() -> None:
    assert outcome().is_well
    assert not outcome(30 << 20).is_well
    assert outcome(30 << 20).trends()["rss"].verdict == "grows"
    wrong = outcome()
    wrong.ledger.violation("x")
    assert not wrong.is_well
    said = soak_campaign.summary(outcome(30 << 20))
    assert "memory                grows: " in said
    assert "open descriptors      flat: 40 in the median" in said
    assert "violations            none" in said


def test_it_is_drawn(tmp_path: Path) -> None:
    plot.draw(outcome().document(), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_two_seconds_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(minutes: str) -> tuple[int, Any]:
        every = f"{float(minutes) * 7.5:g}"  # eight in all
        options = ("--slots", "4", "--seed", "1", "--every", every, "--minutes", minutes)
        return conducted(soak_campaign.main, tmp_path / "json", *options)

    def enough(document: Any) -> bool:
        samples = document["samples"]
        stored = bool(samples) and samples[-1]["store"] > 0 and samples[-1]["journal"] > 0
        made = sum(sample["tokens"] for sample in samples) > 0
        return stored and made and document["counts"].get("requests", 0) > 5

    code, document = long_enough(("0.04", "0.2", "1"), run, enough)
    said = capsys.readouterr().out
    # So short a run may be undecided, but nothing may go wrong in it.
    assert "violations            none" in said, said
    assert 1 <= len(document["samples"]) <= 8
    assert set(document["trends"]) == set(JUDGED)
    assert document["counts"]["requests"] > 5
    assert "failed" not in document["counts"]
    assert set(document["people"]) <= {person.name for person in PEOPLE}
    last = document["samples"][-1]
    assert last["store"] > 0
    assert last["journal"] > 0
    assert sum(sample["tokens"] for sample in document["samples"]) > 0
    well = all(found["verdict"] == "flat" for found in document["trends"].values())
    assert code == int(not well)
