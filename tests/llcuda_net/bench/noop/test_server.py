"""The server that does nothing, in a process of its own, by every protocol of a target."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.opening import Api, open_target
from llcuda_net.bench.noop.server import COMMAND
from llcuda_net.bench.runs.once import self_test
from llcuda_net.bench.runs.stack import listening
from llcuda_net.bench.workload.load import Plan
from llcuda_net.bench.workload.prompts import Prompts
from llcuda_net.bench.workload.schedules import closed
from llcuda_net.errors import LlcudaError

KINDS: list[tuple[str, Api]] = [("", "llcuda"), ("http://", "llama"), ("http://", "openai")]


@pytest.mark.parametrize(("scheme", "api"), KINDS)
async def test_it_gives_what_is_asked_by_each_protocol(scheme: str, api: Api) -> None:
    with trio.fail_after(300):
        async with (
            listening(COMMAND, "the no-op server") as address,
            open_target(scheme + address, api=api) as target,
        ):
            about = await target.about()
            assert about.model == "none"
            records = [Record(number, 0.0) for number in range(20)]
            async with trio.open_nursery() as nursery:
                for record in records:
                    nursery.start_soon(
                        target.ask, "x" * 100_000, {"n_predict": 8}, record, trio.current_time
                    )
            assert [(r.tokens, len(r.chunks), r.prompt_tokens) for r in records] == [(8, 8, 1)] * 20


@pytest.mark.parametrize(("scheme", "api"), KINDS)
async def test_answers_take_turns_and_wait_for_readers(scheme: str, api: Api) -> None:
    """More tokens than the sockets' buffers hold, of two at the same time."""
    with trio.fail_after(300):
        async with (
            listening(COMMAND, "the no-op server") as address,
            open_target(scheme + address, api=api) as target,
        ):
            records = [Record(number, 0.0) for number in range(2)]
            async with trio.open_nursery() as nursery:
                for record in records:
                    nursery.start_soon(
                        target.ask, "x", {"n_predict": 20_000}, record, trio.current_time
                    )
            a, b = records
            assert a.tokens == b.tokens == 20_000
            assert a.chunks[0] < b.chunks[-1]
            assert b.chunks[0] < a.chunks[-1]


@pytest.mark.parametrize(("scheme", "api"), KINDS)
async def test_the_self_test_speaks_the_targets_protocol(
    monkeypatch: pytest.MonkeyPatch, scheme: str, api: Api
) -> None:
    asked: list[str] = []
    plan = Plan(closed(1, 0.2), Prompts(["x"], "x"), {"n_predict": 4}, 10.0, 0.0)
    with trio.fail_after(300):
        async with (
            listening(COMMAND, "the no-op server") as address,
            open_target(scheme + address, api=api) as target,
        ):
            kind = type(target)
            ask = kind.ask

            async def noted(self: object, *args: object, **more: object) -> object:
                assert self is not target  # what is measured is not asked
                asked.append(kind.__name__)
                return await ask(self, *args, **more)  # type: ignore[arg-type]

            monkeypatch.setattr(kind, "ask", noted)
            ceiling = await self_test(plan, {"server": target})
    assert asked
    assert ceiling.tokens > 0
    assert ceiling.ttft
    assert ceiling.ttft > 0
    assert ceiling.cpu_share > 0


async def test_a_process_that_does_not_start() -> None:
    with trio.fail_after(300), pytest.raises(LlcudaError, match="it did not start"):
        async with listening(["true"], "it"):
            pass
