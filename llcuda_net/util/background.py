"""An event loop in a background thread, for callers without async.

anyio's blocking portal runs the loop. What it leaves to its user is here: an interrupt of the
caller cancels what the call does, calls after the end fail in one way, and finalizers may use the
loop from any thread, its own included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from typing import Any, Generic, TypeVar

import trio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")
R = TypeVar("R")
#: Seconds that an interrupted call waits for its cancellation.
_INTERRUPTED = 2.0
_STEP = 1.0


class BackgroundLoop(Generic[T]):
    """A thread that runs trio: it holds an async context open, and runs calls inside it.

    Args:
        opener: makes the context manager, in the thread.
        closed: makes the exception of a call that the end of the loop has cancelled or refused.
        name: of the thread.

    Attributes:
        value: what the context manager gives.

    Raises:
        what opening the context raises.
    """

    def __init__(
        self,
        opener: Callable[[], AbstractAsyncContextManager[T]],
        closed: Callable[[], Exception],
        name: str,
    ) -> None:
        self._closed = closed
        self._name = name
        self._stack = ExitStack()
        self._portal: BlockingPortal
        self._token: trio.lowlevel.TrioToken
        self._thread = 0  # of the loop, while it runs
        self.value: T
        try:
            # An interrupt while anyio starts its thread would leave it waiting for that thread's
            # end for ever. The interrupt meets this thread, so another one starts the portal.
            with ThreadPoolExecutor(1, f"{name}-start") as starter:
                portal = start_blocking_portal("trio", name=name)
                self._portal = starter.submit(self._stack.enter_context, portal).result()
            self._stack.callback(self._portal.call, self._portal.stop, True)
            _, self.value = self._portal.start_task(self._hold, opener)
        except BaseException:
            self._stack.close()
            raise

    def __repr__(self) -> str:
        return f"<BackgroundLoop {self._name} {'running' if self._thread else 'stopped'}>"

    async def _hold(
        self,
        opener: Callable[[], AbstractAsyncContextManager[T]],
        *,
        task_status: TaskStatus[T],
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        async with opener() as value:
            task_status.started(value)
            await trio.sleep_forever()

    def stop(self) -> None:
        """Cancel all calls, close the context, end the thread."""
        if threading.get_ident() == self._thread:
            # The garbage collector called this in the thread itself, which cannot wait for its own
            # end, and where it may hold any lock: a thread that is started later does.
            self._token.run_sync_soon(lambda: threading.Thread(target=self._close).start())
        else:
            self._close()

    def _close(self) -> None:
        self._stack.close()
        self._thread = 0  # Python gives the number to another thread

    def post(self, function: Callable[[], object]) -> None:
        """Have the thread call a function soon; nothing happens after its end.

        Never waits, so finalizers may call it, in any thread.
        """
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    def call(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        undo: Callable[[R], object] | None = None,
    ) -> R:
        """Run an async function in the thread and wait for its outcome.

        Args:
            function: what to run; an interrupt while waiting cancels it.
            undo: called with the outcome, in the thread, if an interrupt comes when there is one.

        Raises:
            what `closed` makes: the loop has ended.
            RuntimeError: this is the thread of the loop.
            what the function raises.
        """
        call = _Call(function, undo, self._closed)
        outcome: Future[R] | None = None
        try:
            outcome = self._portal.start_task_soon(call.run)
            # In steps, since a signal that comes just before Python blocks is only seen after it.
            while not outcome.done():
                wait([outcome], _STEP)
        except RuntimeError:
            if threading.get_ident() == self._thread:
                raise
            raise self._closed() from None
        except BaseException:
            self.post(call.give_up)
            if outcome is not None:
                wait([outcome], _INTERRUPTED)
            raise
        try:
            return outcome.result()
        except CancelledError:
            raise self._closed() from None


class _Call(Generic[R]):
    """One call; its methods run in the background thread."""

    def __init__(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        undo: Callable[[R], object] | None,
        closed: Callable[[], Exception],
    ) -> None:
        self._function = function
        self._undo = undo
        self._closed = closed
        self._scope = trio.CancelScope()
        self._results: list[R] = []

    async def run(self) -> R:
        """Run the function, unless the call is given up before."""
        with self._scope:
            result = await self._function()
            self._results.append(result)
            if self._scope.cancel_called:
                self._undo_results()
            return result
        raise self._closed()

    def give_up(self) -> None:
        """Cancel the function, or undo what it has done."""
        self._scope.cancel()
        self._undo_results()

    def _undo_results(self) -> None:
        while self._undo is not None and self._results:
            self._undo(self._results.pop())
