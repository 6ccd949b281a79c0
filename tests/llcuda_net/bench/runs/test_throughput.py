"""What `llcuda bench throughput` says of servers whose capacity and times are known."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from llcuda_net.bench.report import document, throughput
from llcuda_net.bench.runs.throughput import Sweep, ThroughputBench
from tests.llcuda_net.bench.runs.test_benches import settings, with_fakes
from tests.support.bench_targets import Fake, Known, constant, either, exponential


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fakes(monkeypatch)


def figures(bench: ThroughputBench) -> dict[str, Any]:
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    return found


async def measured(server: Fake, sweep: Sweep) -> dict[str, Any]:
    bench = ThroughputBench(settings(a=server), sweep)
    await bench.run()
    return figures(bench)


async def test_long_answers_without_a_queue_are_not_saturated(autojump_clock: MockClock) -> None:
    """256 slots, no queue, every answer takes 3.0 s: 2, 4 and 8 requests/s are carried."""
    server = Known(constant(3.0), 256)
    found = await measured(server, Sweep((1, 2, 4, 8, 16), (2.0, 4.0, 8.0)))
    assert [row["saturated"] for row in found["rates"]] == ["no"] * 3
    assert found["saturation"] == {"from": None, "carried": 8.0}
    assert "not saturated: 8 requests/s are carried" in throughput.saturation(found)
    for row in found["rates"]:
        assert 3.0 < row["warmup"] < 5.0
        assert row["settled"]
        assert row["metrics"]["latency"]["p50"]["value"] == pytest.approx(3000)
        low, high = (row["requests_per_s"][end] for end in ("low", "high"))
        assert low <= row["load"] <= high
    for row in found["concurrency"]:
        assert row["requests_per_s"]["value"] == pytest.approx(row["load"] / 3, rel=0.01)
    assert not [text for text in found["problems"] if "of its core" not in text]
    assert not any("warm-up" in text for text in found["cautions"])


async def test_a_warm_up_by_hand_that_is_too_short_is_told(autojump_clock: MockClock) -> None:
    """Also then nothing is called saturated."""
    server = Known(constant(3.0), 256)
    found = await measured(server, Sweep((1,), (2.0, 4.0, 8.0), warmup=1.0))
    assert "yes" not in [row["saturated"] for row in found["rates"]]
    (caution,) = (text for text in found["cautions"] if "warm-up" in text)
    assert "the warm-up of 1 s is shorter than an answer (up to 3.00 s)" in caution
    assert "concurrency 1, rate 2, rate 4, rate 8" in caution


async def test_slow_answers_do_not_vanish(autojump_clock: MockClock) -> None:
    """Half the answers take 0.4 s, half 6.05 s, at 8 requests/s."""
    found = await measured(Known(either(0.4, 6.05), None), Sweep((1,), (8.0,)))
    (row,) = found["rates"]
    assert row["outcomes"]["cut"] == 0
    assert 12 < row["seconds"] < 16  # twice as long as an answer
    assert row["outcomes"]["done"] == pytest.approx(8 * row["seconds"] * 5, rel=0.1)
    assert row["metrics"]["latency"]["p90"]["value"] == pytest.approx(6050)
    assert row["saturated"] != "yes"
    assert row["requests_per_s"]["value"] == pytest.approx(8, rel=0.15)


async def test_slow_answers_that_are_cut_are_told(autojump_clock: MockClock) -> None:
    """The same without waiting for them: 53 were done and 56 cut, and nothing said so."""
    found = await measured(
        Known(either(0.4, 6.05), None), Sweep((1,), (8.0,), 13.6, 1.0, 3, drain=0.0)
    )
    (row,) = found["rates"]
    cut, done = row["outcomes"]["cut"], row["outcomes"]["done"]
    assert cut > 0.15 * (cut + done)
    assert row["metrics"]["latency"]["p90"] is None or (
        row["metrics"]["latency"]["p90"]["value"] == pytest.approx(6050)
    )
    assert any("requests were cut when it ended, over 5%" in text for text in found["problems"])
    assert any("were under way when it ended, and cut" in text for text in found["cautions"])
    heads, (cells,) = throughput.table(found, "rates")
    assert cells[heads.index("cut")] == f"{cut / (cut + done):.0%}"


@pytest.mark.parametrize("slots", [1, 8])
async def test_a_server_that_carries_ten_a_second(autojump_clock: MockClock, slots: int) -> None:
    """M/M/1 and M/M/8 of 10 answers/s, from far below to far above."""
    server = Known(exponential(slots / 10), slots)
    found = await measured(server, Sweep((8,), (4.0, 9.8, 14.0), seconds=20))
    told = {row["load"]: row["saturated"] for row in found["rates"]}
    assert (told[4.0], told[14.0]) == ("no", "yes")
    assert told[9.8] != "yes"
    assert found["saturation"] == {"from": 14.0, "carried": found["saturation"]["carried"]}
    warmups = {row["load"]: row["warmup"] for row in found["rates"]}
    assert warmups[9.8] > warmups[4.0]  # it is longer near saturation


async def test_a_full_queue_that_refuses_is_saturated(autojump_clock: MockClock) -> None:
    from llcuda_net.errors import Overloaded

    class Shed(Known):
        """Nobody waits: who finds no free slot is refused."""

        async def ask(self, *args: Any, **more: Any) -> Any:
            if self._free.available_tokens == 0:
                await trio.lowlevel.checkpoint()
                raise Overloaded("the queue is full", retry=True)
            return await super().ask(*args, **more)

    found = await measured(Shed(constant(1.0), 5), Sweep((1, 2), (0.5, 16.0), 20))
    assert [row["saturated"] for row in found["rates"]] == ["no", "yes"]
    assert "were refused: the queue was full" in found["rates"][1]["saturated_why"]


async def test_goodput_is_of_what_began_in_the_window(autojump_clock: MockClock) -> None:
    """All answers take 3.0 s: within 4 s all of them are good, within 2 s none."""
    for bound, share in ((4.0, 1.0), (2.0, 0.0)):
        server, slo = Known(constant(3.0), 256), {"latency": bound}
        found = await measured(server, Sweep((1,), (4.0,), slo=slo))
        (row,) = found["rates"]
        begun = row["outcomes"]["done"] / 5 / row["seconds"]
        assert row["goodput"]["value"] == pytest.approx(share * begun)


async def test_what_is_complete_has_figures(autojump_clock: MockClock) -> None:
    bench = ThroughputBench(settings(a=Known(constant(0.1), 8)), Sweep((1, 2), (4.0, 8.0)))
    with trio.move_on_after(110):
        await bench.run()
    assert 0 < len(bench.rates[0].runs) < 5
    found = figures(bench)
    assert len(bench.records()) == sum(
        len(run.records) for step in (*bench.concurrency, *bench.rates) for run in step.runs
    )
    assert [row["load"] for row in found["concurrency"]] == [1, 2]
    assert throughput.lines(found)


async def test_rounds_have_schedules_of_their_own(autojump_clock: MockClock) -> None:
    bench = ThroughputBench(settings(a=Fake()), Sweep((1,), (10.0,)))
    await bench.run()
    (step,) = bench.rates
    assert len(step.runs) == 5
    assert len({run.schedule.moments for run in step.runs}) == 5


async def test_rates_are_shares_of_what_closed_loops_reach(autojump_clock: MockClock) -> None:
    """M/D/4 of 20 answers/s, with nothing said but the concurrency."""
    found = await measured(Known(constant(0.2), 4), Sweep((1, 2, 4, 8), rounds=3))
    assert found["knee"]["load"] == 4
    loads = [row["load"] for row in found["rates"]]
    assert loads == pytest.approx([5, 10, 15, 18, 20, 25], rel=0.02)
    assert found["rates"][0]["saturated"] == "no"
    assert found["rates"][-1]["saturated"] != "no"
