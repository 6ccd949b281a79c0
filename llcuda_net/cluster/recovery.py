"""What a fenced life has left in the database: its open generations, with their logs."""

from __future__ import annotations

import structlog

from llcuda_net.cluster import leases
from llcuda_net.errors import StorageError
from llcuda_net.storage.journal.assembly import Collector
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.replica.interface import Former

log = structlog.get_logger(__name__)

#: Batches that are read at a time.
_BATCHES = 64


def read(db: Connection, server: int) -> Former:
    """What is to be taken over from a server that is fenced: so its journal is whole.

    What is not among its generations was never accepted, is over, or is another one's.
    """
    owned = leases.owned(db, server)
    collector = Collector((), {})
    number = 0
    while True:
        batches = leases.journal(db, server, number, _BATCHES)
        for number, data in batches:
            try:
                collector.add_array(data)
            except StorageError as error:  # the logs in it end before it
                log.error("journal_damaged", server=server, batch=number, reason=error.message)
        if len(batches) < _BATCHES:
            break
    found = [one for one in collector.generations() if one.id in owned]
    lost = sorted(owned.keys() - {one.id for one in found})
    if lost:
        log.error("generations_lost", server=server, generations=lost, why="not in its journal")
    whole = leases.was_handed_over(db, server)
    return Former(server, found, frozenset(leases.taken(db, server)), whole)
