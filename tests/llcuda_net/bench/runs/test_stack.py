"""What is started to be measured ends with the measurement."""

from __future__ import annotations

import os

import trio

from llcuda_net.bench.runs.stack import listening


async def test_what_a_server_has_started_ends_with_it() -> None:
    """llcuda-server compiles kernels in a process beside it."""
    command = ["sh", "-c", 'sleep 1000 & echo "listening on $!"; wait']
    with trio.fail_after(300):
        async with listening(command, "it") as child:
            process = os.pidfd_open(int(child))
        try:
            await trio.lowlevel.wait_readable(process)  # once it has ended
        finally:
            os.close(process)
