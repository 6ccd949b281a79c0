"""Whole measurements with servers of which every time is known, on a clock of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch.mpi import Communicator
from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import About, Answer, Target
from llcuda_net.bench.report import document
from llcuda_net.bench.runs import latency, ranks
from llcuda_net.bench.runs.latency import Direct, LatencyBench
from llcuda_net.bench.runs.settings import Access, Kernels, Request, Settings
from llcuda_net.bench.runs.throughput import Sweep, ThroughputBench
from llcuda_net.errors import ConfigError, ConnectError
from tests.support.bench_targets import Fake, Known, constant, either


class Slots(Fake):
    """Serves eight requests at once."""

    def __init__(self, first: float = 0.010) -> None:
        super().__init__(first)
        self._slots = trio.CapacityLimiter(8)

    async def about(self) -> About:
        await trio.lowlevel.checkpoint()
        return About("fake", 8, "fake 1")

    async def ask(self, prompt: Any, params: Any, record: Record, now: Any, **more: Any) -> Answer:
        async with self._slots:
            return await super().ask(prompt, params, record, now, **more)


class FakeAccess(Access):
    """Opens one of the servers that it was given, by address."""

    servers: dict[str, Fake]

    @asynccontextmanager
    async def _open(self, server: str) -> AsyncIterator[Target]:
        await trio.lowlevel.checkpoint()
        if server not in self.servers:
            raise ConnectError(f"nobody at {server}")
        yield self.servers[server]

    def open(self, server: str, **more: Any) -> Any:
        return self._open(server)


def settings(**servers: Fake) -> Settings:
    access = FakeAccess()
    FakeAccess.servers = servers
    return Settings("a", access, None, Request(max_tokens=5), Kernels(), 30.0, self_test=False)


def with_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`with_key` makes a new access: here it is the same."""
    monkeypatch.setattr(Settings, "with_key", lambda self, key: self.access)


async def test_latency_of_two_ways(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway takes 3 ms more to the first token, and no more for the others."""
    with_fakes(monkeypatch)
    load = latency.Load(rate=50, arrivals="constant", seconds=2.0, warmup=0.5, repeats=2)
    gateway = Fake(0.013)
    bench = LatencyBench(settings(a=gateway, b=Fake(0.010)), load, Direct("b"))
    await bench.run()
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    paths = found["paths"]
    assert paths["server"]["requests"] == paths["direct"]["requests"] == 2 * 50
    assert paths["server"]["metrics"]["ttft"]["p50"]["value"] == pytest.approx(13)
    assert paths["server"]["metrics"]["gap"]["p50"]["value"] == pytest.approx(1)
    assert found["cost"]["service_ttft"]["median"]["value"] == pytest.approx(3)
    assert found["cost"]["tpot"]["median"]["value"] == pytest.approx(0, abs=1e-6)
    assert len(found["repetitions"]["ttft p50"]) == 2
    assert found["settings"]["direct"] is True
    assert len(found["timeline"]) == 200


async def test_the_rehearsal_finds_how_long_to_warm_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer takes 3 s: the measured runs wait for one, and their figures have intervals."""
    with_fakes(monkeypatch)
    load = latency.Load(rate=10, arrivals="constant", seconds=20.0)
    bench = LatencyBench(settings(a=Fake(2.996)), load)
    await bench.run()
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    assert len(bench.runs) == 5
    assert bench.rehearsal is not None
    assert not {id(r) for r in bench.rehearsal.records} & {id(r) for r in bench.records()}
    assert found["warmup"] == pytest.approx(3.3, rel=0.01)
    assert (found["settled"], found["settings"]["warmup"]) == (True, None)
    (path,) = found["paths"].values()
    assert path["metrics"]["latency"]["p90"]["low"] == pytest.approx(3000)
    assert found["carried"]["requests_per_s"]["value"] == pytest.approx(10, rel=0.01)


async def test_one_repeat_has_no_rehearsal_and_no_interval(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fakes(monkeypatch)
    load = latency.Load(rate=10, arrivals="constant", seconds=20.0, repeats=1)
    bench = LatencyBench(settings(a=Fake(0.996)), load)
    await bench.run()
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    assert bench.rehearsal is None
    assert found["warmup"] >= 1.0
    (path,) = found["paths"].values()
    p50 = path["metrics"]["latency"]["p50"]
    assert (p50["low"], p50["why"]) == (None, "one repeat")
    assert found["carried"]["requests_per_s"]["why"] == "one repeat"


async def test_a_load_that_does_not_settle_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 slots carry 571 requests/s, and 700 are offered: the queue grows without end."""
    with_fakes(monkeypatch)
    load = latency.Load(rate=700, seconds=2.0, repeats=2)
    bench = LatencyBench(settings(a=Slots()), load)
    await bench.run()
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    assert found["settled"] is False
    assert any("had not settled" in text for text in found["cautions"])
    (path,) = found["paths"].values()
    assert path["metrics"]["latency"]["mean"]["low"] is None


async def test_latency_goes_on_while_the_last_answers_come(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the answers take 0.4 s, half 6.05 s; a warm-up by hand of 1 s is shorter."""
    with_fakes(monkeypatch)
    for load, later in (
        (latency.Load(rate=8, seconds=20, repeats=2), True),
        (latency.Load(rate=8, seconds=20, repeats=2, warmup=1.0), True),
        (latency.Load(rate=8, seconds=20, repeats=2, requests=50), False),
        (latency.Load(rate=8, seconds=20, repeats=2, arrivals="ramp:9"), False),
    ):
        bench = LatencyBench(settings(a=Known(either(0.4, 6.05), None)), load)
        await bench.run()
        found = document.begin("t", [], 1, bench.as_dict())
        bench.figures(found)
        for run in bench.runs:
            assert all(record.done for record in run.measured)
            assert any(record.intended >= run.schedule.seconds for record in run.records) is later
        short = [text for text in found["cautions"] if "shorter than an answer" in text]
        assert bool(short) is (load.warmup is not None)


async def test_throughput_ends_at_the_slots(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 slots, 5 tokens in 14 ms: 571 requests/s, 2,857 tokens/s, and no more."""
    with_fakes(monkeypatch)
    sweep = Sweep((1, 4, 8, 16), (100.0, 900.0), 0.6, 0.1, 3, {"ttft": 0.05})
    bench = ThroughputBench(settings(a=Slots()), sweep)
    await bench.run()
    found = document.begin("t", [], 1, bench.as_dict())
    bench.figures(found)
    one, _, eight, sixteen = (row["tokens_per_s"]["value"] for row in found["concurrency"])
    assert one == pytest.approx(5 / 0.014, rel=0.03)
    assert eight == pytest.approx(40 / 0.014, rel=0.03)
    assert sixteen == pytest.approx(eight, rel=0.03)
    assert found["knee"]["load"] == 8
    few, many = found["rates"]
    assert (few["saturated"], many["saturated"]) == ("no", "yes")
    assert few["goodput"]["value"] == pytest.approx(100, rel=0.1)
    assert many["goodput"]["value"] < 0.7 * many["requests_per_s"]["value"]
    assert found["saturation"] == {"from": 900.0, "carried": 100.0}
    assert any("8 slots" in text for text in found["cautions"])
    assert len(found["repetitions"]["tokens_per_s at 8"]) == 3


async def test_one_point_of_a_curve(autojump_clock: MockClock) -> None:
    found = await ranks.point(
        Communicator(), settings(a=Slots()), ranks.Load(inflight=4, seconds=1.0, warmup=0.1)
    )
    assert found is not None
    assert found["tokens_per_s"]["value"] == pytest.approx(20 / 0.014, rel=0.03)
    assert (found["ranks"], found["inflight"], found["slots"]) == (1, 4, 8)
    assert found["metrics"]["ttft"]["p50"] == pytest.approx(10, rel=0.01)
    with pytest.raises(ConnectError, match="rank 0: nobody at a"):
        await ranks.point(Communicator(), settings(), ranks.Load())


async def test_a_point_of_answers_as_long_as_its_window(autojump_clock: MockClock) -> None:
    """All answers take 3.0 s, so 4 workers bring 4/3 a second, though 5 s have none or 8 ends."""
    found = await ranks.point(
        Communicator(), settings(a=Known(constant(3.0), None)), ranks.Load(inflight=4)
    )
    assert found is not None
    assert found["requests_per_s"]["value"] == pytest.approx(4 / 3, rel=0.01)
    assert found["tokens_per_s"]["value"] == pytest.approx(8 / 3, rel=0.01)
    (rank,) = found["each"]
    assert 3.0 < rank["warmup"] < 4.0
    assert rank["outcomes"]["cut"] == 0
    assert found["metrics"]["latency"]["count"] == rank["outcomes"]["done"]


async def test_a_point_says_what_got_no_answer(autojump_clock: MockClock) -> None:
    server = Fake()
    server.fails = lambda number: ConnectError("lost") if number % 4 == 0 else None
    found = await ranks.point(Communicator(), settings(a=server), ranks.Load(inflight=1))
    assert found is not None
    assert any("requests got no answer" in text for text in found["cautions"])


def test_strong_scaling_shares_the_load_out() -> None:
    load = ranks.Load(inflight=5, mode="strong")
    assert [load.share(rank, 3) for rank in range(3)] == [2, 2, 1]
    assert ranks.Load(inflight=5).share(2, 3) == 5
    with pytest.raises(ConfigError, match="5 requests at once cannot be shared out over 6 ranks"):
        load.share(0, 6)


def test_a_key_that_was_given_goes_before_none() -> None:
    base = Settings("a", Access(api_key="own"), None, Request(), Kernels(), 1.0, self_test=True)
    assert base.with_key("other").api_key == "other"
    assert base.with_key(None).api_key == "own"
