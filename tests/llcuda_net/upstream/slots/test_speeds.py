"""What an upstream takes for its work is learnt from its own reports."""

from __future__ import annotations

import random

import pytest

from llcuda_net.upstream.slots.choice import ANSWER, READ_MS, Outlook
from llcuda_net.upstream.slots.speeds import ReadTime, Speeds
from llcuda_net.upstream.slots.step_time import Sample


def test_before_anything_was_read() -> None:
    assert ReadTime().ms == READ_MS


@pytest.mark.parametrize("seed", range(5))
def test_what_a_prompt_takes_besides_its_tokens_does_not_count(seed: int) -> None:
    chance, reading = random.Random(seed), ReadTime()
    for _ in range(60):
        tokens = chance.randint(5, 500)
        reading.record(tokens, (30.0 + 0.5 * tokens) * chance.lognormvariate(0.0, 0.1))
    assert reading.ms == pytest.approx(0.5, rel=0.3)


def test_of_prompts_of_one_length_the_mean_is_all_there_is() -> None:
    reading = ReadTime()
    for _ in range(10):
        reading.record(100, 80.0)
    assert reading.ms == pytest.approx(0.8)


def test_noise_never_makes_it_free() -> None:
    reading = ReadTime()
    reading.record(10, 90.0)
    reading.record(100, 10.0)
    assert 0.0 < reading.ms <= 9.0


@pytest.mark.parametrize(("tokens", "ms"), [(0, 5.0), (5, 0.0), (5, -1.0), (5, 1e12)])
def test_what_is_no_measurement_is_passed_over(tokens: int, ms: float) -> None:
    reading = ReadTime()
    reading.record(tokens, ms)
    assert reading.ms == READ_MS


def test_the_outlook_is_of_what_was_seen() -> None:
    speeds = Speeds()
    assert speeds.outlook(None, 1.0) == Outlook()
    for _ in range(100):
        speeds.record_answer(50)
        speeds.record_prompt(returns=True)
        speeds.reading.record(10, 20.0)
        speeds.record_steps(Sample(10.0, 2, 1, 50))
        speeds.record_steps(Sample(20.0, 2, 2, 50))
        speeds.record_steps(None)
    found = speeds.outlook(None, 0.5)
    assert found.read_ms == pytest.approx(2.0)
    assert found.found == 0.5
    assert found.split_ms == pytest.approx(20.0, rel=0.1)
    assert found.steps == pytest.approx(50, rel=0.01)
    assert found.reuse == pytest.approx(1.0, rel=0.01)
    assert speeds.outlook(7, 0.5).steps == 7  # of which it may have no more


def test_another_process_may_be_as_fast_as_it_likes() -> None:
    speeds = Speeds()
    speeds.reading.record(10, 20.0)
    speeds.record_steps(Sample(10.0, 2, 2, 50))
    speeds.record_answer(10)
    speeds.forget()
    found = speeds.outlook(None, 1.0)
    assert (found.read_ms, found.split_ms) == (READ_MS, Outlook().split_ms)
    assert found.steps < ANSWER  # of what is asked for, which is the same as before


def test_a_verdict_is_news_once_for_each_process() -> None:
    speeds, split = Speeds(), [Sample(12.9, 8, 2, 32), Sample(2.9, 8, 1, 32)] * 40
    assert not speeds.record_steps(None)
    assert [speeds.record_steps(one) for one in split].count(True) == 1
    assert str(speeds.steps.cache) == "separate"
    speeds.forget()
    assert [speeds.record_steps(one) for one in split].count(True) == 1
    assert [speeds.record_steps(one._replace(step_ms=2.9)) for one in split * 10].count(True) == 1
    assert str(speeds.steps.cache) == "unified"
