"""llcuda-server, broken on purpose: the campaign must notice, or it proves nothing.

    python tools/crash/broken.py MODE [llcuda-server's options]

A killed process does not lose what it has handed to the system. So what is written too late must be
written noticeably late.
"""

from __future__ import annotations

import errno
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import trio

from llcuda_net.cli import server
from llcuda_net.generation.persistence import Persistence
from llcuda_net.server.batches.run import Run
from llcuda_net.storage.journal.disk import RealFiles
from llcuda_net.util.terminal import echo

#: Seconds that a result is committed after `done`.
COMMIT_LATE = 0.2
#: Seconds that the journal is written after its tokens were sent.
JOURNAL_LATE = 0.05


def acknowledge_before_commit() -> None:
    """Send `done` at once, and commit the result later."""
    commit = Persistence.finish

    async def finish(self: Persistence, *arguments: Any, **named: Any) -> None:
        async def later() -> None:
            await trio.sleep(COMMIT_LATE)
            await commit(self, *arguments, **named)

        trio.lowlevel.spawn_system_task(later)

    Persistence.finish = finish  # type: ignore[method-assign]


def send_before_journal() -> None:
    """Report that the journal is written, and write it later."""
    write, cut, close = RealFiles.pwrite, RealFiles.truncate, RealFiles.close
    late: queue.SimpleQueue[tuple[float, Callable[[], object]]] = queue.SimpleQueue()

    def writer() -> None:
        while True:
            due, work = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            work()

    def put(work: Callable[[], object]) -> None:
        late.put((time.monotonic() + JOURNAL_LATE, work))

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        copy = bytes(data)
        put(lambda: write(descriptor, copy, offset))
        return len(copy)

    def never_now(self: RealFiles, descriptor: int, data: bytes | bytearray, offset: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    RealFiles.pwrite = staticmethod(pwrite)
    RealFiles.write_now = never_now  # type: ignore[method-assign]
    # In the order of the calls.
    RealFiles.truncate = lambda self, *how: put(lambda: cut(self, *how))  # type: ignore[method-assign]
    RealFiles.close = lambda self, *how: put(lambda: close(self, *how))  # type: ignore[method-assign]
    threading.Thread(target=writer, daemon=True).start()


def ask_lines_anew() -> None:
    """Give each line of a batch another key whenever it is asked."""

    def key(self: Run, number: int) -> str:
        return f"{self._batch.id}:{number}:{secrets.token_hex(4)}"

    Run._key = key  # type: ignore[method-assign]


#: Of a server with batches.
BATCH_MODES: dict[str, Callable[[], None]] = {"ask-lines-anew": ask_lines_anew}
MODES: dict[str, Callable[[], None]] = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "send-before-journal": send_before_journal,
}


if __name__ == "__main__":
    known = {**MODES, **BATCH_MODES}
    if sys.argv[1:2] not in ([mode] for mode in known):
        echo(f"{__doc__}\nmodes: {', '.join(known)}", file=sys.stderr)
        sys.exit(1)
    known[sys.argv[1]]()
    sys.exit(server.main(sys.argv[2:]))
