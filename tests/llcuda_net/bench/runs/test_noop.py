"""The server that does nothing, in a process of its own."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.opening import open_target
from llcuda_net.bench.runs import noop
from llcuda_net.bench.runs.stack import listening
from llcuda_net.errors import LlcudaError


async def test_it_gives_what_is_asked() -> None:
    with trio.fail_after(300):
        async with (
            listening(noop.COMMAND, "the no-op server") as address,
            open_target(address) as target,
        ):
            records = [Record(number, 0.0) for number in range(3)]
            for record in records:
                await target.ask("x", {"n_predict": 8}, record, trio.current_time)
    assert [(record.tokens, len(record.chunks)) for record in records] == [(8, 8)] * 3


async def test_a_process_that_does_not_start() -> None:
    with trio.fail_after(300), pytest.raises(LlcudaError, match="it did not start"):
        async with listening(["true"], "it"):
            pass
