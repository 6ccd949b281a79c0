"""The paths of batches. What belongs to somebody else is answered as what does not exist."""

from __future__ import annotations

import time

import msgspec
import structlog

from llcuda_net.config.users import view_of
from llcuda_net.server.http.batches.create import create
from llcuda_net.server.http.batches.view import no_batch, view
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import PAGING, PageQuery, check_names, page
from llcuda_net.server.http.route import Route
from llcuda_net.storage.objects import batches
from llcuda_net.storage.objects.batches import Batch
from llcuda_net.storage.objects.interface import Database

log = structlog.get_logger(__name__)

#: Batches of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 20, 100


async def listed(exchange: Exchange) -> None:
    """The user's batches, newest first, in pages as OpenAI's API has them."""
    request = exchange.request
    check_names(request.query, PAGING)
    wanted = PageQuery.of(request.query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    owner = view_of(request.user)

    def ask(db: Database) -> list[Batch]:
        after = None
        if wanted.after is not None:
            after = _found(db, wanted.after, owner, "after").seq
        return batches.listed(
            db, owner, limit=wanted.limit + 1, after=after, ascending=wanted.ascending
        )

    found = await exchange.host.objects.read(ask)
    entries = [view(one) for one in found[: wanted.limit]]
    document = page(entries, more=len(found) > wanted.limit)
    exchange.respond(200, msgspec.json.encode(document))


async def show(exchange: Exchange) -> None:
    """A batch, and how far it is."""
    id_, owner = exchange.request.parameters["id"], view_of(exchange.request.user)
    batch = await exchange.host.objects.read(lambda db: _found(db, id_, owner))
    exchange.respond(200, msgspec.json.encode(view(batch)))


async def cancel(exchange: Exchange) -> None:
    """Ask nothing more of a batch; what was answered is in its output."""
    id_, owner = exchange.request.parameters["id"], view_of(exchange.request.user)

    def change(db: Database) -> Batch:
        found = batches.cancel(db, _found(db, id_, owner).seq, time.time_ns())
        if found.ends != batches.CANCELLED:
            raise HttpError(
                409,
                f"the batch {id_[:80]!r} is {found.state}, and cannot be cancelled any more",
                code="batch_over",
                headers={"x-should-retry": "false"},
            )
        return found

    batch = await exchange.host.objects.write(change)
    exchange.host.wake_batches()
    log.info("batch_cancelled", batch=id_, user=exchange.request.user.name)
    exchange.respond(200, msgspec.json.encode(view(batch)))


def _found(db: Database, id_: str, owner: str | None, param: str | None = None) -> Batch:
    found = batches.find(db, id_, owner)
    if found is None:
        raise no_batch(id_, param)
    return found


ROUTES = [
    Route("POST", "/v1/batches", create),
    Route("GET", "/v1/batches", listed),
    Route("GET", "/v1/batches/{id}", show),
    Route("POST", "/v1/batches/{id}/cancel", cancel, json=False),
]
