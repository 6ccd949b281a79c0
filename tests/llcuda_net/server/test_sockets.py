"""Clients never take the last descriptors: the monitoring port needs some."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from llcuda_net.server.sockets import RESERVED, SparingListener

#: A process of its own: in this one, whatever closes a file meanwhile would make room.
ALONE = "import sys, trio; from {} import wait; trio.run(wait, int(sys.argv[1]))"


def taken() -> int:
    """A descriptor more, the lowest that is free."""
    return os.open(os.devnull, os.O_RDONLY)


def without_gaps(stack: contextlib.AsyncExitStack) -> int:
    """Take all descriptors below the highest one in use; the lowest that is then free."""
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    while (found := taken()) < highest:
        stack.callback(os.close, found)
    os.close(found)
    return found


@pytest.mark.parametrize("room", [RESERVED, 4 * RESERVED])
def test_clients_wait_while_only_the_reserve_is_left(room: int) -> None:
    root = Path(__file__).parents[3]
    module = ".".join(Path(__file__).relative_to(root).with_suffix("").parts)
    subprocess.run([sys.executable, "-c", ALONE.format(module), str(room)], check=True, cwd=root)


async def wait(room: int) -> None:
    """Take all descriptors but the reserve, see a client wait, and be let in when one is free."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with contextlib.AsyncExitStack() as stack:
        made_room: list[bool] = []
        sparing = SparingListener(listener, lambda: made_room.append(True))
        await stack.enter_async_context(sparing)
        waiting = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
        assert waiting.socket.fileno() >= 0
        used = without_gaps(stack)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, hard))
            kept = min(RESERVED, (used + room) // 2)
            held = [taken() for _ in range(room - kept)]
            for each in held:
                stack.callback(os.close, each)
            with pytest.raises(OSError, match="no descriptors") as caught:
                await sparing.accept()
            assert made_room == [True]  # what nobody needs was asked to go
            assert caught.value.errno == errno.EMFILE  # which trio waits for the end of
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + room + 2, hard))  # as if one went
            with trio.fail_after(300):
                accepted = await sparing.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await accepted.aclose()
