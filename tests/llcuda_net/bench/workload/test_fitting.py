"""A work is fitted to its target: what a token is there, and how long a prompt may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.bench.workload import schedules
from llcuda_net.bench.workload.fitting import Fitted, What, Window, fit, measure_sizes
from llcuda_net.bench.workload.generator import Generated, Sizes
from llcuda_net.bench.workload.load import Plan, Run
from llcuda_net.bench.workload.prompts import Prompts
from llcuda_net.bench.workload.replays import Replay
from llcuda_net.errors import ConfigError, Overloaded
from tests.support.bench_targets import Fake


class Counting(Fake):
    """Makes 1.25 tokens of a word, adds 9 to each message, and knows what it was asked."""

    name = "counting"
    each = 9

    def __init__(self) -> None:
        super().__init__(first=0.0, step=0.001)
        self.asked: list[dict[str, Any]] = []

    def count(self, text: str) -> int:
        return round(1.25 * len(text.split()))

    async def ask(
        self, prompt: Any, params: dict[str, Any], record: Record, now: Any, **more: Any
    ) -> Answer:
        self.asked.append({"prompt": prompt, **more})
        record.sent = now()
        if (error := self.fails(record.number)) is not None:
            raise error
        await trio.sleep(self.first + 0.001)
        record.tokens = params["n_predict"]
        if "texts" in more:
            record.prompt_tokens = sum(map(self.count, more["texts"]))
        elif "messages" in more:
            texts = [message["content"] for message in more["messages"]]
            record.prompt_tokens = sum(self.count(each) + self.each for each in texts)
        else:
            record.prompt_tokens = self.count(prompt)
        return Answer(" ".join(["word"] * round(record.tokens / 1.25)), "length")


async def test_what_a_token_is_is_asked_of_the_target(autojump_clock: MockClock) -> None:
    target = Counting()
    assert await measure_sizes(target, chat=False) == Sizes(1.25, 0, measured=True)
    assert await measure_sizes(target, chat=True) == Sizes(1.25, 9, measured=True)
    assert await measure_sizes(target, chat=False, embed=True) == Sizes(1.25, 0, measured=True)
    kinds = [sorted(each) for each in target.asked]
    assert kinds == [["prompt"]] * 2 + [["messages", "prompt"]] * 2 + [["prompt", "texts"]] * 2


async def test_a_target_that_does_not_count_is_noted(autojump_clock: MockClock) -> None:
    work = What(workload="code").work()
    for target in (Fake(), Fake()):
        found = await fit(work, [target])
        assert isinstance(found.work, Generated)
        assert found.work.sizes == Sizes()
        assert "fake does not count the tokens of prompts" in found.notes[0]
    refusing = Counting()
    refusing.fails = lambda number: Overloaded("not now")
    assert await measure_sizes(refusing, chat=False) == Sizes()
    slow = Counting()
    slow.first = 1e6
    with trio.fail_after(1000):
        assert await measure_sizes(slow, chat=False) == Sizes()


@pytest.mark.parametrize("name", ["chat", "code", "summarise", "agent"])
async def test_prompts_come_as_long_as_they_were_wanted(
    autojump_clock: MockClock, name: str
) -> None:
    """But for rounding, and for a template's tokens of the messages after the first."""
    target = Counting()
    found = await fit(What(workload=name, max_prompt=20_000).work(), [target])
    assert found.notes == ()
    run = Run(Plan(schedules.constant(1, 20), found.work), {"server": target})
    records = [record for record in await run.run() if record.done]
    assert len(records) >= 20
    for record in records:
        assert record.wanted_prompt is not None
        messages = 2 + 2 * record.turn
        assert abs(record.prompt_tokens - record.wanted_prompt) <= 10 * messages
        assert record.tokens == record.wanted_tokens


async def test_a_context_cuts_prompts_and_answers(autojump_clock: MockClock) -> None:
    found = await fit(What(workload="agent", max_tokens=100).work(), [Counting()], 2048)
    assert isinstance(found.work, Generated)
    assert (found.work.max_prompt, found.work.max_tokens) == (1863, 100)
    assert "context holds 2,048 tokens: prompts have at most 1,863, answers 100" in found.notes[0]
    found = await fit(What(workload="agent", max_prompt=500).work(), [Counting()], 2048)
    assert isinstance(found.work, Generated)
    assert (found.work.max_prompt, found.work.max_tokens) == (500, 512)


async def test_prompts_are_left_as_they_are(autojump_clock: MockClock) -> None:
    target = Counting()
    work = What(prompts="hello").work()
    found = await fit(work, [target], 2048)
    assert found.work is work
    assert isinstance(work, Prompts)
    assert found.as_dict() is None
    assert target.asked == []


async def test_texts_are_embedded(autojump_clock: MockClock) -> None:
    target = Counting()
    found = await fit(What(workload="embed").work(), [target], 512)
    run = Run(Plan(schedules.constant(1, 5), found.work, params={"n_predict": 1}), {"s": target})
    records = await run.run()
    assert all(len(each["texts"]) == 8 for each in target.asked[2:])
    for record in records:
        assert record.prompt_tokens == pytest.approx(record.wanted_prompt, abs=8)
        assert record.wanted_tokens is None


async def test_where_only_prompts_are_counted_they_say_what_a_token_is(
    autojump_clock: MockClock,
) -> None:
    class Mute(Counting):
        async def ask(self, *arguments: Any, **more: Any) -> Answer:
            answer = await super().ask(*arguments, **more)
            if "texts" in more:
                arguments[2].prompt_tokens = 0
            return answer

    found = await fit(What(workload="embed").work(), [Mute()])
    assert isinstance(found.work, Generated)
    assert found.work.sizes == Sizes(1.25, 0, measured=True)
    assert "counting does not count the tokens of texts to embed" in found.notes[0]


def test_a_warm_up_shorter_than_a_session_is_noted() -> None:
    chat = Fitted(What(workload="chat", think=2.0).work(), ("one",))
    assert chat.turns == pytest.approx(2.48, abs=0.01)
    assert chat.moment == "sessions"
    assert chat.cautions(60.0) == ["one"]
    (_, said) = chat.cautions(2.0)
    assert said.startswith("a session thinks for 21 s on average, and the warm-up took 2 s")
    for other in (What(workload="code"), What(prompts="x")):
        found = Fitted(other.work())
        assert (found.turns, found.moment, found.cautions(0.0)) == (1.0, "requests", [])


def test_what_a_document_says(tmp_path: Path) -> None:
    found = found_of(What(workload="chat@1", seed=7, think=0.5))
    assert found["workload"]["name"] == "chat"
    assert found["workload"]["first"]["p50"] == 1020
    assert (found["seed"], found["think_factor"], found["tokens_per_word"]) == (7, 0.5, 1.0)
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 5, "output_length": 2}\n')
    what = What(trace=Window(trace))
    assert isinstance(what.work(), Replay)
    assert found_of(what)["trace"] == {"format": "mooncake", "file": "t.jsonl"}
    with pytest.raises(ConfigError, match="there is no workload 'x'"):
        What(workload="x").work()


def found_of(what: What) -> dict[str, Any]:
    found = Fitted(what.work()).as_dict()
    assert found is not None
    return found
