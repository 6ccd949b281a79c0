"""What the trio thread has another one do, and waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")


async def ordered(give: Callable[[Callable[[], object]], object], work: Callable[[], _T]) -> _T:
    """Have a thread do something, to its end, also if the caller is cancelled.

    Args:
        give: gives an order to the thread, which calls it once.

    Returns:
        What the work returns; or what it raises is raised.
    """
    token = trio.lowlevel.current_trio_token()
    task = trio.lowlevel.current_task()
    done: list[_T] = []
    failure: list[BaseException] = []

    def order() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failure.append(error)
        token.run_sync_soon(trio.lowlevel.reschedule, task)

    give(order)
    await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
    if failure:
        raise failure[0]
    return done[0]
