"""Running trio from a command: Ctrl-C and SIGTERM cancel it, and everything is closed."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from llcuda_net.cli.common import Terminated

T = TypeVar("T")


def run_async(
    main: Callable[..., Awaitable[T]],
    *arguments: object,
    on_interrupt: Callable[[int], None] | None = None,
) -> T:
    """`trio.run`, ended by a signal at a checkpoint and nowhere else.

    Args:
        on_interrupt: called at each Ctrl-C, with how many have come.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it; after everything was closed.
        Terminated: SIGTERM did.
    """
    came: list[int] = []

    async def watch(scope: trio.CancelScope, listening: trio.Event) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            listening.set()
            async for number in signals:
                came.append(number)
                scope.cancel()
                if number == signal.SIGINT and on_interrupt is not None:
                    on_interrupt(came.count(number))

    async def body() -> list[T]:
        with trio.CancelScope() as scope:
            listening = trio.Event()
            trio.lowlevel.spawn_system_task(watch, scope, listening)
            await listening.wait()
            return [await main(*arguments)]
        return []

    found = trio.run(body)
    if found:
        return found[0]
    if signal.SIGTERM in came:
        raise Terminated
    raise KeyboardInterrupt
