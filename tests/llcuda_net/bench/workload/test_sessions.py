"""Sessions of several turns: each is meant for the end of the answer before it, plus think time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.asks import Ask
from llcuda_net.bench.workload.load import Plan, Run
from llcuda_net.errors import InternalError
from tests.support.bench_targets import Fake


class Turns:
    """Sessions of `count` turns, `think` seconds apart, which tell what they heard."""

    described = "turns"

    def __init__(self, count: int, think: float) -> None:
        self.count, self.think = count, think
        self.heard: dict[int, list[str]] = {}

    def session(self, number: int) -> OneOfThem:
        return OneOfThem(self, number)

    def for_run(self, run: int) -> Turns:
        return self


class OneOfThem:
    several = True

    def __init__(self, work: Turns, number: int) -> None:
        self.work, self.number, self.left = work, number, work.count

    def first(self) -> Ask:
        self.left -= 1
        return Ask(f"{self.number}", max_tokens=7, prompt_tokens=3)

    def following(self, answer: Answer, record: Record) -> tuple[float, Ask] | None:
        self.work.heard.setdefault(self.number, []).append(answer.text)
        if self.left == 0:
            return None
        self.left -= 1
        return self.work.think, Ask(messages=[{"role": "user", "content": str(self.number)}])


async def test_a_turn_is_meant_for_the_end_of_the_answer_before_it_plus_think_time(
    autojump_clock: MockClock,
) -> None:
    work = Turns(3, 0.5)
    run = Run(Plan(schedules.constant(1, 10), work), {"gateway": Fake()})
    records = [r for r in await run.run() if r.session == 2]
    assert [r.turn for r in records] == [0, 1, 2]
    assert [r.last for r in records] == [False, False, True]
    assert [r.intended for r in records] == pytest.approx([2.0, 2.514, 3.028])
    assert [r.lag for r in records] == pytest.approx([0, 0, 0])
    assert [r.wanted_prompt for r in records] == [3, None, None]
    assert [r.wanted_tokens for r in records] == [7, None, None]
    assert work.heard[2] == ["text"] * 3


async def test_turns_after_the_schedules_end_are_not_sent(autojump_clock: MockClock) -> None:
    run = Run(Plan(schedules.constant(1, 3), Turns(9, 1.0)), {"gateway": Fake()})
    records = await run.run()
    assert max(r.intended for r in records) < 3
    assert Counter(r.session for r in records) == {0: 3, 1: 2, 2: 1}
    assert not any(r.last for r in records)


async def test_a_turn_without_an_answer_ends_its_session_alone(autojump_clock: MockClock) -> None:
    fake = Fake()
    fake.fails = lambda number: InternalError("broken") if number == 1 else None
    run = Run(Plan(schedules.constant(1, 10), Turns(2, 0.1)), {"gateway": fake})
    records = await run.run()
    assert [r.outcome for r in records if r.session == 1] == [Outcome.FAILED]
    assert all(r.done for r in records if r.session != 1)
    assert sum(r.last for r in records) == 9


async def test_users_of_a_closed_loop_think_too(autojump_clock: MockClock) -> None:
    """An answer takes 14 ms, a turn 114 ms with thinking: 9 turns of each user fit into 1 s."""
    fake = Fake()
    run = Run(Plan(schedules.closed(4, 1.0), Turns(50, 0.1), warmup=0.5), {"gateway": fake})
    records = await run.run()
    assert Counter(r.session for r in records) == dict.fromkeys(range(4), 9)
    assert fake.most == 4
    assert [r.warmup for r in records if r.session == 0] == [True] * 5 + [False] * 4


async def test_a_session_of_several_turns_takes_one_path(autojump_clock: MockClock) -> None:
    with trio.fail_after(100):
        run = Run(Plan(schedules.constant(2, 5), Turns(2, 0.1)), {"a": Fake(), "b": Fake()})
        records = await run.run()
    assert {(r.session, r.path) for r in records} == {(n, p) for n in range(5) for p in "ab"}
    assert len(records) == 20


async def test_sessions_go_on_while_those_of_the_window_end(autojump_clock: MockClock) -> None:
    """Later turns are asked for, too, and are not measured."""
    plan = Plan(schedules.constant(1, 10), Turns(9, 0.5), cooldown=20.0)
    records = await Run(plan, {"gateway": Fake(first=3.0)}).run()
    after = [r for r in records if r.intended >= 10]
    assert any(r.turn > 0 for r in after)
    assert all(r.warmup for r in after)
    assert all(r.done and not r.warmup for r in records if r.intended < 10)


async def test_sessions_go_on_while_the_run_cools_down_and_are_not_measured(
    autojump_clock: MockClock,
) -> None:
    """While an answer of the schedule is awaited, users go on as before."""

    class Slow(Fake):
        async def ask(self, *arguments: Any, **more: Any) -> Answer:
            if arguments[2].number == 0 and arguments[2].turn == 1:
                await trio.sleep(3)
            return await super().ask(*arguments, **more)

    run = Run(Plan(schedules.closed(2, 1.0), Turns(50, 0.2), cooldown=9.0), {"server": Slow()})
    records = await run.run()
    of_the_other = [r for r in records if r.session == 1]
    assert [r.turn for r in of_the_other] == list(range(len(of_the_other)))
    assert [r.warmup for r in of_the_other] == [r.intended >= 1 for r in of_the_other]
    assert max(r.intended for r in of_the_other) > 2.5
    assert {r.session for r in records} == {0, 1}
