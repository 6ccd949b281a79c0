"""Steps are measured while the same slots work, from the tokens that came anyway."""

from __future__ import annotations

from dataclasses import dataclass

from llcuda_net.upstream.slots.step_samples import StepSamples
from llcuda_net.upstream.slots.step_time import Sample


@dataclass
class Fake:
    tokens: int = 0
    first: float | None = None
    last: float = 0.0

    def come(self, tokens: int, last: float) -> None:
        if self.first is None:
            self.first = last
        self.tokens, self.last = self.tokens + tokens, last


def sample(samples: StepSamples, slots: list[int], *streams: Fake) -> Sample:
    found = samples.end(slots, streams)
    assert found is not None
    return found._replace(step_ms=round(found.step_ms, 6))


def test_after_an_end_those_that_are_left_are_measured() -> None:
    samples, one, two = StepSamples(), Fake(), Fake()
    one.come(5, 1.0)
    two.come(5, 1.0)
    samples.begin([0, 2], [one, two], 1.0)
    one.come(20, 1.2)
    assert sample(samples, [0, 2], one, two) == Sample(10.0, 2, 2, 20)


def test_after_a_start_what_counts_begins_when_the_prompt_has_been_read() -> None:
    samples, old, new = StepSamples(), Fake(), Fake()
    old.come(5, 1.0)
    samples.begin([0, 1], [old, new], 1.0)
    old.come(2, 1.4)  # slowly, while the other one's prompt is read
    new.come(1, 1.5)
    for stream in (old, new):
        stream.come(10, 1.6)
    assert sample(samples, [0, 1], old, new) == Sample(10.0, 2, 1, 10)


def test_the_last_that_begins_is_the_one_that_counts() -> None:
    samples, one, two = StepSamples(), Fake(), Fake()
    samples.begin([0, 1], [one, two], 1.0)
    one.come(1, 1.1)
    one.come(3, 2.0)
    two.come(1, 2.0)
    for stream in (one, two):
        stream.come(8, 2.08)
    assert sample(samples, [0, 1], one, two) == Sample(10.0, 2, 1, 8)


def test_nothing_is_measured_of_what_is_not_known() -> None:
    samples, one, two = StepSamples(), Fake(), Fake()
    assert samples.end([], []) is None
    one.come(1, 1.0)
    samples.begin([0, 1], [one, two], 1.0)
    one.come(50, 2.0)
    assert samples.end([0, 1], [one, two]) is None  # the other one reads
    two.come(1, 2.0)
    two.come(2, 2.1)
    assert samples.end([0, 1], [one, two]) is None  # too few
    two.come(1, 2.2)
    assert samples.end([0, 1, 5], [one, two]) is None  # somebody else's came
    assert samples.end([0, 1], [one, two]) is not None


def test_one_that_stands_still_is_no_measurement() -> None:
    samples, one = StepSamples(), Fake()
    one.come(1, 1.0)
    samples.begin([0], [one], 1.0)
    assert samples.end([0], [one]) is None
    assert "1 active" in repr(samples)
