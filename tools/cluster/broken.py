"""llcuda-server, broken on purpose: the campaign must notice, or it proves nothing.

python tools/cluster/broken.py MODE [llcuda-server's options]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from llcuda_net.cli import server
from llcuda_net.cluster import leases
from llcuda_net.cluster.standing import LEASE, OwnLease, Standing
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.util.terminal import echo


def no_fencing() -> None:
    """Whoever is fenced goes on writing, and believes that it may."""

    def append(db: Connection, me: int, number: int, data: bytes) -> bool:
        db.execute(
            "INSERT INTO journal (server, number, data) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (me, number, data),
        )
        return True

    renew = leases.renew

    def renewed(db: Connection, me: int, seconds: float = LEASE) -> bool:
        renew(db, me, seconds)
        return True

    leases.append = append
    leases.renew = renewed
    OwnLease.standing = lambda self, now: Standing.MEMBER  # type: ignore[method-assign]


#: What is broken, and by which faults that shows.
MODES: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "no-fencing": (no_fencing, ("stop", "isolate")),
}


if __name__ == "__main__":
    if sys.argv[1:2] not in ([mode] for mode in MODES):
        echo(f"{__doc__}\nmodes: {', '.join(MODES)}", file=sys.stderr)
        sys.exit(1)
    MODES[sys.argv[1]][0]()
    sys.exit(server.main(sys.argv[2:]))
