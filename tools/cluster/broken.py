"""llcuda-server, broken on purpose: the campaign must notice, or it proves nothing.

python tools/cluster/broken.py MODE [llcuda-server's options]
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from llcuda_net.cli import server
from llcuda_net.cluster import leases
from llcuda_net.cluster.mirror import Mirror
from llcuda_net.cluster.portions import Contents, Life
from llcuda_net.cluster.standing import LEASE, OwnLease, Standing
from llcuda_net.errors import StorageError
from llcuda_net.storage.postgres.connection import Connection, Session
from llcuda_net.util.terminal import echo

#: Seconds that a batch is committed after what it holds was shown.
COMMIT_LATE = 0.3
_FENCE = " AND NOT fenced"


class _Unfenced:
    """A connection on which no statement looks whether its server is fenced."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def execute(self, sql: str, *values: Any, **named: Any) -> Any:
        """The same without the fence."""
        return self._db.execute(sql.replace(_FENCE, ""), *values, **named)


def no_fencing() -> None:
    """Whoever is fenced goes on writing, and believes that it may."""
    append, renew, release = leases.append, leases.renew, leases.release

    def unfenced(db: Connection) -> Connection:
        return cast(Connection, _Unfenced(db))

    def appended(db: Connection, *values: Any, **named: Any) -> bool:
        append(unfenced(db), *values, **named)
        return True

    def renewed(db: Connection, me: int, seconds: float = LEASE) -> bool:
        renew(db, me, seconds)
        return True

    def released(db: Connection, me: int, ids: Sequence[str]) -> bool:
        release(unfenced(db), me, ids)
        return True

    def held(db: Connection, me: int) -> bool:
        return True

    leases.append, leases.renew, leases.release = appended, renewed, released
    leases.hold = held
    OwnLease.standing = lambda self, now: Standing.MEMBER  # type: ignore[method-assign]


def acknowledge_before_commit() -> None:
    """Say of each batch that it is in the database, and write it a moment later."""
    late: queue.Queue[tuple[float, Callable[[], object]]] = queue.Queue()
    session = Session(sys.argv[sys.argv.index("--store") + 1], write=True)
    release = leases.release

    def writer() -> None:
        while True:
            due, write = late.get()
            time.sleep(max(0.0, due - time.monotonic()))
            _to_its_end(write)
            late.task_done()

    def commit(self: Mirror, life: Life) -> None:
        batch = life.batch()
        if batch is None:
            return
        found = Contents.of(batch.records)
        accepts = [one.accept for one in found.started]
        self._committed(life, batch)
        append = partial(
            leases.append,
            me=life.number,
            number=batch.number,
            data=found.data,
            accepts=accepts,
            ended=found.ended,
        )
        late.put((time.monotonic() + COMMIT_LATE, lambda: session.ask("late", append)))

    def released(db: Connection, me: int, ids: Sequence[str]) -> bool:
        late.join()  # the row is there only then
        return release(db, me, ids)

    Mirror._commit = commit  # type: ignore[method-assign, assignment]
    leases.release = released
    threading.Thread(target=writer, daemon=True).start()


def _to_its_end(write: Callable[[], object]) -> None:
    while True:
        try:
            write()
        except StorageError as error:
            if not error.retry:
                return
            time.sleep(0.1)
        else:
            return


#: What is broken, and by which faults that shows.
MODES: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "no-fencing": (no_fencing, ("stop",)),
    "acknowledge-before-commit": (acknowledge_before_commit, ("kill",)),
}


if __name__ == "__main__":
    if sys.argv[1:2] not in ([mode] for mode in MODES):
        echo(f"{__doc__}\nmodes: {', '.join(MODES)}", file=sys.stderr)
        sys.exit(1)
    MODES[sys.argv[1]][0]()
    sys.exit(server.main(sys.argv[2:]))
