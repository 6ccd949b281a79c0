"""The paths of files. What belongs to somebody else is answered as what does not exist."""

from __future__ import annotations

import time
from urllib.parse import quote

import msgspec
import structlog

from llcuda_net.config.users import view_of
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.files.upload import upload
from llcuda_net.server.http.files.view import no_file, view
from llcuda_net.server.http.request import PAGING, PageQuery, check_names, page
from llcuda_net.server.http.route import Route
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.files import File
from llcuda_net.storage.objects.interface import Database

log = structlog.get_logger(__name__)

#: Files of a page, where a request does not say, and at most.
DEFAULT_PAGE, LARGEST_PAGE = 1000, 10_000
#: Bytes that an entry of a page takes in memory, about.
_ENTRY = 1024


async def listed(exchange: Exchange) -> None:
    """The user's files, newest first, in pages as OpenAI's API has them."""
    request, host = exchange.request, exchange.host
    check_names(request.query, (*PAGING, "purpose"))
    wanted = PageQuery.of(request.query, default=DEFAULT_PAGE, most=LARGEST_PAGE)
    owner, now = view_of(request.user), time.time_ns()
    purpose = request.query.get("purpose")

    def ask(db: Database) -> list[File]:
        after = None
        if wanted.after is not None:
            after = files.find(db, wanted.after, owner, now)
            if after is None:
                raise no_file(wanted.after, "after")
        return files.listed(
            db,
            owner,
            now,
            limit=wanted.limit + 1,
            purpose=purpose,
            after=None if after is None else after.seq,
            ascending=wanted.ascending,
        )

    with host.holding(request.user, wanted.limit * _ENTRY):
        found = await host.objects.read(ask)
        entries = [view(one) for one in found[: wanted.limit]]
        document = page(entries, more=len(found) > wanted.limit)
        exchange.respond(200, msgspec.json.encode(document))


async def show(exchange: Exchange) -> None:
    """One file, without its content."""
    exchange.respond(200, msgspec.json.encode(view(await _find(exchange))))


async def content(exchange: Exchange) -> None:
    """The bytes of a file."""
    file = await _find(exchange)
    objects = exchange.host.objects
    number, data = 0, await objects.read(lambda db: files.chunk(db, file.seq, 0))
    name = quote(file.name, safe="")
    exchange.begin_stream(
        {
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            # It is whatever was uploaded: no browser is to run it here.
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox",
        },
        "application/octet-stream",
    )
    sent = 0
    while data:
        exchange.write(data)
        sent += len(data)
        exchange.flush()
        await exchange.buffer.drained()
        number += 1
        at = number
        data = await objects.read(lambda db: files.chunk(db, file.seq, at))  # noqa: B023
    if sent != file.bytes:  # deleted meanwhile: the client sees that the end is missing
        exchange.keep_alive = False
        exchange.gone()
        return
    exchange.end_stream()
    exchange.flush()


async def delete(exchange: Exchange) -> None:
    """Delete a file; a batch that runs reads it to its end nevertheless."""
    id_ = exchange.request.parameters["id"]
    owner = view_of(exchange.request.user)

    def change(db: Database) -> None:
        found = files.find(db, id_, owner, time.time_ns())
        if found is None:
            raise no_file(id_)
        files.discard(db, found.seq)

    await exchange.host.objects.write(change)
    exchange.host.objects.wake()
    log.info("file_deleted", file=id_, user=exchange.request.user.name)
    document = {"id": id_, "object": "file", "deleted": True}
    exchange.respond(200, msgspec.json.encode(document))


async def _find(exchange: Exchange) -> File:
    id_ = exchange.request.parameters["id"]
    owner, now = view_of(exchange.request.user), time.time_ns()
    found = await exchange.host.objects.read(lambda db: files.find(db, id_, owner, now))
    if found is None:
        raise no_file(id_)
    return found


ROUTES = [
    Route("POST", "/v1/files", upload, json=False, parts=True),
    Route("GET", "/v1/files", listed),
    Route("GET", "/v1/files/{id}", show),
    Route("DELETE", "/v1/files/{id}", delete),
    Route("GET", "/v1/files/{id}/content", content),
]
