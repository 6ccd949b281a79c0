"""The load sends what was decided, when it was decided, and hides nothing that happened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch.record import GAP, Outcome, Record, measured, values
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.bench.statistics.censored import observations
from llcuda_net.bench.statistics.censored import quantile as quantile_of
from llcuda_net.bench.statistics.summary import difference, rates, summarise
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.load import LEAD, Plan, Run
from llcuda_net.bench.workload.prompts import Prompts
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.bench.workload.validity import Bounds, Ceiling, cautions, lag_p99, problems, shared
from llcuda_net.errors import ConnectError, InternalError, Overloaded, RequestTimeout
from llcuda_net.util.quantile import quantile
from tests.support.bench_targets import Fake, Known, constant, either

PROMPTS = Prompts(["a", "b", "c"], "three")


def plan(schedule: Schedule, **options: object) -> Plan:
    return Plan(schedule, PROMPTS, **options)  # type: ignore[arg-type]


def latencies(records: list[Record]) -> list[float]:
    return [value for (value,) in values(records, "latency")]


async def test_requests_go_out_at_their_moments(autojump_clock: MockClock) -> None:
    fake = Fake()
    run = Run(plan(schedules.constant(10, 1)), {"gateway": fake})
    records = await run.run()
    assert [record.sent for record in records] == pytest.approx([i / 10 for i in range(10)])
    assert [record.ttft for record in records] == pytest.approx([0.010] * 10)
    assert [record.latency for record in records] == pytest.approx([0.014] * 10)
    assert [record.tpot for record in records] == pytest.approx([0.001] * 10)
    assert records[0].gaps == pytest.approx([0.001] * 4)
    assert fake.prompts == [PROMPTS[i] for i in range(10)]
    assert all(record.done for record in records)
    assert lag_p99(records) == pytest.approx(0, abs=1e-9)


async def test_a_stall_is_in_the_tail_of_an_open_schedule_and_hidden_by_a_closed_loop(
    autojump_clock: MockClock,
) -> None:
    """The server answers in 14 ms, but for the 5 s of 50 in which it answers nobody.

    Whoever comes in the stall, a tenth of all, waits for its end, up to 5 s: so p95 is about 2.5 s,
    and p99 about 4.5 s. A closed loop of one asks once in that time.
    """
    results = {}
    for name, schedule in (
        ("open", schedules.constant(20, 50)),
        ("closed", schedules.closed(1, 50)),
    ):
        fake = Fake()
        begin = trio.current_time() + LEAD
        fake.stall = (begin + 20, begin + 25)
        records = await Run(plan(schedule), {"gateway": fake}).run()
        assert all(record.done for record in records)
        results[name] = latencies(records)
    true = [0.014 + max(0.0, 25 - t) if 20 <= t < 25 else 0.014 for t in np.arange(1000) / 20]
    for share in (0.5, 0.9, 0.95, 0.99):
        assert quantile(results["open"], share) == pytest.approx(quantile(true, share), abs=1e-6)
    tail = quantile(results["open"], 0.99)
    assert tail is not None
    assert tail > 4.4
    hidden = quantile(results["closed"], 0.99)
    assert hidden == pytest.approx(0.014)


async def test_a_client_that_is_late_counts_its_lateness_and_is_found_out(
    autojump_clock: MockClock,
) -> None:
    """Latency is from the intended moment; the service time is what the server took."""

    class Slow(Fake):
        async def ask(self, *args: object, **more: object) -> Answer:
            await trio.sleep(0.5)  # before it is sent: this client's fault
            return await super().ask(*args, **more)  # type: ignore[arg-type]

    schedule = schedules.constant(10, 2)
    records = await Run(plan(schedule), {"gateway": Slow()}).run()
    assert records[0].lag == pytest.approx(0.5)
    assert records[0].latency == pytest.approx(0.514)
    assert records[0].service == pytest.approx(0.014)
    found = problems(records, schedule, warmup=0, cpu_share=0.1)
    assert any("dispatch lag is 500.0 ms, over 10 ms" in line for line in found)
    assert any("were sent in time" in line for line in found)
    assert not problems(
        records, schedule, warmup=0, cpu_share=0.1, bounds=Bounds(lag=1.0, rate=0.5)
    )


async def test_outcomes_are_told_apart(autojump_clock: MockClock) -> None:
    fake = Fake()
    errors = {
        1: Overloaded("the queue is full", retry=True),
        2: InternalError("a bug"),
        3: ConnectError("lost"),
        4: RequestTimeout("too late"),
    }
    fake.fails = errors.get
    records = await Run(plan(schedules.constant(10, 1)), {"gateway": fake}).run()
    found = [record.outcome for record in records]
    assert found[:6] == [
        Outcome.DONE,
        Outcome.REFUSED,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.TIMEOUT,
        Outcome.DONE,
    ]
    summary = summarise([records])
    assert summary["outcomes"] == {"done": 6, "refused": 1, "failed": 2, "timeout": 1, "cut": 0}
    assert summary["metrics"]["latency"]["count"] == 6
    assert "4 of 10 requests got no answer" in cautions(records, schedules.constant(10, 1))[0]


async def test_a_request_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    records = await Run(
        plan(schedules.constant(1, 2), timeout=3.0), {"gateway": Fake(first=10)}
    ).run()
    assert [record.outcome for record in records] == [Outcome.TIMEOUT] * 2
    assert [record.latency for record in records] == pytest.approx([3.0, 3.0])
    assert "no request was answered" in problems(
        records, schedules.constant(1, 2), warmup=0, cpu_share=0
    )[0]  # fmt: skip


async def test_what_is_under_way_at_the_end_is_waited_for(autojump_clock: MockClock) -> None:
    """Half the answers take 0.4 s, half 6.05 s, at 8 requests/s for 14 s: none vanishes."""
    server = Known(either(0.4, 6.05), None)
    run = Run(plan(schedules.poisson(8, 14, 3), warmup=7.0), {"gateway": server})
    counted = measured(await run.run())
    assert all(record.done for record in counted)
    assert 14 < run.seconds <= 14 + 6.05
    assert run.until == 14
    slow = sum(record.latency > 6 for record in counted)
    assert slow / len(counted) == pytest.approx(0.5, abs=0.1)
    assert not problems(counted, run.plan.schedule, warmup=7, cpu_share=0)


async def test_what_is_cut_is_counted_and_makes_it_invalid(autojump_clock: MockClock) -> None:
    """The same without waiting: half is cut, and says that the median is above what has ended."""
    server = Known(either(0.4, 6.05), None)
    run = Run(plan(schedules.poisson(8, 14, 3), warmup=7.0, drain=0.0), {"gateway": server})
    counted = measured(await run.run())
    cut = [record for record in counted if record.outcome is Outcome.CUT]
    assert {record.ended for record in cut} == {14.0}
    assert server.active == 0
    assert 0.3 < len(cut) / len(counted) < 0.6
    found = observations(counted, "latency")
    assert quantile_of(found, 0.4) == pytest.approx(0.4)
    assert quantile_of(found, 0.7) == pytest.approx(6.05)
    (line,) = problems(counted, run.plan.schedule, warmup=7, cpu_share=0)
    assert "of the requests were cut when it ended, over 5%" in line
    lines = cautions(counted, run.plan.schedule)
    assert any(f"{len(cut)} of {len(counted)} requests were under way" in each for each in lines)


async def test_the_end_cuts_what_is_under_way(autojump_clock: MockClock) -> None:
    fake = Fake(first=0.4)
    run = Run(plan(schedules.closed(2, 1.0), drain=0.0), {"gateway": fake})
    records = await run.run()
    assert run.seconds == pytest.approx(1.0)
    assert [record.outcome for record in records] == [Outcome.DONE] * 4 + [Outcome.CUT] * 2
    assert fake.active == 0
    later = Run(plan(schedules.closed(2, 1.0), drain=0.1), {"gateway": Fake(first=0.4)})
    assert [record.ended for record in (await later.run())[-2:]] == pytest.approx([1.1, 1.1])
    whole = Run(plan(schedules.closed(2, 1.0), drain=5.0), {"gateway": Fake(first=0.4)})
    assert all(record.done for record in await whole.run())
    assert whole.seconds == pytest.approx(3 * 0.404)


async def test_the_window_ends_with_the_sending(autojump_clock: MockClock) -> None:
    """With a number of requests the last answers come after it, while ever fewer are asked for."""
    opened = Run(plan(schedules.constant(10, 60), requests=20), {"gateway": Fake(first=5.0)})
    assert len(await opened.run()) == 20
    assert (opened.until, opened.seconds) == pytest.approx((2.0, 1.9 + 5.004))
    closed = Run(plan(schedules.closed(2, 60), requests=4), {"gateway": Fake(first=1.0)})
    assert len(await closed.run()) == 4
    assert closed.until == pytest.approx(2 * 1.004)


class Shared(Fake):
    """Answers the faster, the fewer there are, as an engine that batches."""

    async def ask(self, prompt: Any, params: Any, record: Record, now: Any, **more: Any) -> Answer:
        record.sent = now()
        self.active += 1
        try:
            for _ in range(10):
                await trio.sleep(0.01 * self.active)
        finally:
            self.active -= 1
        return Answer("text", "length", "fake", "g")


async def test_the_last_answers_come_under_the_same_load(autojump_clock: MockClock) -> None:
    """What is sent while they end is not measured, and cut when they have ended."""
    for schedule in (schedules.closed(4, 9.0), schedules.poisson(20, 9.0, 1)):
        fake = Known(constant(2.0), None)
        run = Run(plan(schedule, warmup=3.0, cooldown=60.0), {"gateway": fake})
        records = await run.run()
        counted = measured(records)
        assert all(record.done and 3 <= record.intended < 9 for record in counted)
        last = max(record.ended for record in counted)
        later = [record for record in records if record.intended >= 9]
        assert later
        assert all(record.warmup for record in later)
        assert run.until == 9.0
        assert last <= run.seconds <= last + 0.1
        assert len({record.number for record in records}) == len(records)


async def test_without_that_they_come_faster(autojump_clock: MockClock) -> None:
    """8 requests/s of 0.1 s of the server's work each: the last have it to themselves."""
    took: dict[float, list[float]] = {}
    for cooldown in (0.0, 60.0):
        run = Run(plan(schedules.poisson(8, 20.0, 2), cooldown=cooldown), {"gateway": Shared()})
        records = await run.run()
        took[cooldown] = [r.latency for r in records if r.intended < 20]
    alone, loaded = took[0.0], took[60.0]
    assert len(alone) == len(loaded)
    assert alone[: len(alone) // 2] == pytest.approx(loaded[: len(loaded) // 2])
    assert sum(alone[-5:]) < 0.9 * sum(loaded[-5:])


async def test_it_ends_though_the_load_is_more_than_is_carried(autojump_clock: MockClock) -> None:
    run = Run(
        plan(schedules.poisson(20, 5.0, 1), cooldown=3.0), {"gateway": Known(constant(0.1), 1)}
    )
    records = await run.run()
    assert max(record.intended for record in records) < 8.0
    assert all(record.done for record in records if record.intended < 5)
    assert run.seconds == pytest.approx(0.1 * sum(r.intended < 5 for r in records), abs=0.3)


async def test_the_last_moment_of_a_trace_is_measured(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its moments end with its time."""
    file = tmp_path / "trace"
    file.write_text("0\n1\n2\n")
    records = await Run(plan(schedules.trace(file)), {"gateway": Fake()}).run()
    assert [record.warmup for record in records] == [False] * 3


async def test_a_number_of_requests_needs_no_more(autojump_clock: MockClock) -> None:
    for schedule in (schedules.closed(2, 60), schedules.constant(10, 60)):
        run = Run(plan(schedule, requests=4, cooldown=9.0), {"gateway": Fake()})
        assert len(await run.run()) == 4
        assert run.seconds < 1


async def test_a_closed_loop_keeps_so_many_going(autojump_clock: MockClock) -> None:
    fake = Fake()
    records = await Run(plan(schedules.closed(3, 1.0)), {"gateway": fake}).run()
    assert fake.most == 3
    assert len(records) == pytest.approx(3 / 0.014, abs=4)
    assert sorted(record.number for record in records) == list(range(len(records)))


async def test_a_server_that_is_not_there_is_not_asked_without_pause(
    autojump_clock: MockClock,
) -> None:
    fake = Fake()
    fake.fails = lambda number: ConnectError("nobody there")
    records = await Run(plan(schedules.closed(1, 2.0)), {"gateway": fake}).run()
    assert 15 <= len(records) <= 21


async def test_warm_up_is_apart_and_requests_are_counted(autojump_clock: MockClock) -> None:
    options = {"warmup": 1.0, "requests": 7}
    opened = await Run(plan(schedules.constant(10, 60), **options), {"gateway": Fake()}).run()
    assert (len(opened), len(measured(opened))) == (17, 7)
    closed = await Run(plan(schedules.closed(2, 60), **options), {"gateway": Fake()}).run()
    assert len(measured(closed)) == 7


async def test_each_prompt_goes_both_ways_and_the_difference_is_paired(
    autojump_clock: MockClock,
) -> None:
    """Prompts differ by 100 ms; the gateway by 3 ms: pairing finds the 3."""

    class Varied(Fake):
        async def ask(self, prompt: object, *args: object, **more: object) -> Answer:
            self.first = self.base + 0.1 * "abc".index(str(prompt))
            return await super().ask(prompt, *args, **more)  # type: ignore[arg-type]

        base = 0.0

    direct, gateway = Varied(), Varied()
    direct.base, gateway.base = 0.010, 0.013
    run = Run(plan(schedules.constant(10, 20), seed=4), {"gateway": gateway, "direct": direct})
    records = await run.run()
    assert sorted(gateway.prompts) == sorted(direct.prompts)
    firsts = [record.path for record in records][::2]
    assert {"gateway", "direct"} == set(firsts)  # neither goes first always
    found = difference([records[:100], records[100:]], "ttft")
    assert found is not None
    assert found["pairs"] == 100
    assert found["median"]["value"] == pytest.approx(3.0)
    assert found["median"]["low"] == pytest.approx(3.0)
    assert found["mean"]["value"] == pytest.approx(3.0)


async def test_work_afterwards_is_timed_apart(autojump_clock: MockClock) -> None:
    async def after(record: Record, answer: Answer) -> float:
        await trio.sleep(1.0)
        return 1.0

    records = await Run(plan(schedules.constant(10, 1)), {"gateway": Fake()}, after=after).run()
    assert [record.latency for record in records] == pytest.approx([0.014] * 10)
    assert [record.post for record in records] == [1.0] * 10
    assert summarise([records])["post"]["mean"]["value"] == pytest.approx(1000)


async def test_rates_are_of_the_wall_clock(autojump_clock: MockClock) -> None:
    """2 workers, 14 ms an answer of 5 tokens: 142.9 answers and 714 tokens a second."""
    records = await Run(plan(schedules.closed(2, 11.0), drain=0.0), {"gateway": Fake()}).run()
    found = rates(records, 1.0, 11.0, batches=10)
    assert found["requests_per_s"]["value"] == pytest.approx(2 / 0.014, rel=0.01)
    assert found["tokens_per_s"]["value"] == pytest.approx(10 / 0.014, rel=0.01)
    assert found["tokens_per_s"]["low"] <= 10 / 0.014 <= found["tokens_per_s"]["high"]
    assert rates(records, 1.0, 11.0)["tokens_per_s"]["why"] == "one repeat"


async def test_figures_agree_with_the_records(autojump_clock: MockClock) -> None:
    records = await Run(plan(schedules.poisson(30, 40, 1)), {"gateway": Fake()}).run()
    summary = summarise([records])
    assert summary["tokens"] == 5 * len(records)
    ttft, gap = summary["metrics"]["ttft"], summary["metrics"][GAP]
    assert ttft["p50"]["value"] == pytest.approx(10)
    assert gap["count"] == 4 * len(records)
    assert gap["p99"]["value"] == pytest.approx(1)
    assert ttft["p99.9"] is None
    assert summary["phases"]["queue"]["value"] == 1.0


def test_a_busy_client_and_one_near_its_ceiling_are_invalid() -> None:
    record = Record(0, 0.0, sent=0.0, outcome=Outcome.DONE)
    schedule = schedules.closed(1, 1)
    found = problems([record], schedule, warmup=0, cpu_share=0.95)
    assert "95% of its core" in found[0]
    ceiling = Ceiling(requests=10, tokens=1000, ttft=0.001, lag=0.0)  # of no known share
    assert problems(
        [record], schedule, warmup=0, cpu_share=0, ceiling=ceiling, tokens_per_s=900
    )[0].startswith("900 tokens/s is more than 70%")  # fmt: skip
    assert not problems([record], schedule, warmup=0, cpu_share=0, ceiling=ceiling, tokens_per_s=9)


def test_a_client_that_is_half_idle_is_not_at_its_ceiling() -> None:
    """39 % of a core, where the self-test took 81 %: its server was the slower one."""
    schedule = schedules.closed(1, 1)
    record = Record(0, 0.0, sent=0.0, ended=0.1, outcome=Outcome.DONE)
    ceiling = Ceiling(requests=10, tokens=1000, ttft=0.001, lag=0.0, cpu_share=0.81)
    for share, count in ((0.39, 0), (0.6, 1)):
        found = problems(
            [record], schedule, warmup=0, cpu_share=share, ceiling=ceiling, tokens_per_s=900
        )
        assert sum("that this client can read" in text for text in found) == count
    assert "measure longer" in problems([], schedule, warmup=0, cpu_share=0)[0]


def test_what_a_reader_must_know() -> None:
    growing = [
        Record(i, float(i), sent=float(i), ended=i + i * 0.1, outcome=Outcome.DONE)
        for i in range(100)
    ]
    found = cautions(growing, schedules.constant(1, 100))
    assert "the queue was growing" in found[0]
    assert "stalls are under-counted" in cautions(growing[:3], schedules.closed(1, 1))[0]
    assert shared(["10.0.0.1:9000", "http://127.0.0.1:80"], 2)
    assert not shared(["10.0.0.1:9000"], 2)


def test_prompts(tmp_path: Path) -> None:
    from llcuda_net.bench.workload import prompts
    from llcuda_net.errors import ConfigError

    made = prompts.parse("synthetic:10-20", seed=1)
    assert made[3] == prompts.parse("synthetic:10-20", seed=1)[3]
    assert made[3] != prompts.parse("synthetic:10-20", seed=2)[3]
    assert {10, 20} <= {len(made[i].split()) - 1 for i in range(len(made))} <= set(range(10, 21))
    long = prompts.parse("synthetic:lognormal:100:0.5", seed=1)
    sizes = sorted(len(long[i].split()) for i in range(len(long)))
    assert 90 < sizes[len(sizes) // 2] < 112
    file = tmp_path / "p.jsonl"
    file.write_text('"one"\n\n{"prompt": "two"}\n')
    read = prompts.parse(f"@{file}", seed=1)
    assert [read[0], read[1], read[2]] == ["one", "two", "one"]
    file.write_text('{"text": 1}\n')
    for wrong in (f"@{file}", "@/nowhere", "synthetic:x", "synthetic:lognormal:1", " "):
        with pytest.raises(ConfigError):
            prompts.parse(wrong, seed=1)


def test_a_record_that_was_never_sent_has_no_lag() -> None:
    assert math.isnan(Record(0, 0.0).lag)
    assert lag_p99([Record(0, 0.0)]) == 0.0
