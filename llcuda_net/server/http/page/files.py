"""GET / and GET /page/...: the files of the page. They hold no secret, and need no token."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.page.assets import (
    HEADERS,
    INDEX,
    KEPT,
    KEPT_LONG,
    Asset,
    has_tag,
    load,
    takes_gzip,
)
from llcuda_net.server.http.route import Route

_HTML, _JSON = re.compile(r"text/(html|\*)", re.I), re.compile(r"application/(json|\*)", re.I)


class Root(msgspec.Struct):
    """Where things are, for a program that asks for JSON at `/`."""

    object: Literal["server"] = "server"
    api: str = "/v1"
    openapi: str = "/openapi.json"
    ready: str = "/readyz"


async def index(exchange: Exchange) -> None:
    """The page; who asks for JSON, and not for HTML, is told where the API is."""
    check_on(exchange)
    accepted = ",".join(exchange.request.headers.all("accept"))
    if _JSON.search(accepted) and not _HTML.search(accepted):
        exchange.respond(200, msgspec.json.encode(Root()), headers={"Vary": "Accept"})
        return
    _send(exchange, load().files[INDEX], KEPT, vary="Accept, Accept-Encoding")


async def file(exchange: Exchange) -> None:
    """One file of the page."""
    check_on(exchange)
    path = exchange.request.parameters["file"]
    found = load().find(path)
    if found is None:
        raise HttpError(404, f"there is no file {path!r:.200} of the page", code="not_found")
    asset, for_ever = found
    _send(exchange, asset, KEPT_LONG if for_ever else KEPT, vary="Accept-Encoding")


def check_on(exchange: Exchange) -> None:
    """Refuse what is of the page, where there is none.

    Raises:
        HttpError: as said.
    """
    if not exchange.host.settings.page:
        raise HttpError(404, "this server has no page (--no-page)", code="not_found")


def _send(exchange: Exchange, asset: Asset, kept: str, *, vary: str) -> None:
    asked = exchange.request.headers
    packed = takes_gzip(",".join(asked.all("accept-encoding")))
    tag = asset.tag_of(packed=packed)
    headers = {**HEADERS, "Cache-Control": kept, "ETag": tag, "Vary": vary}
    condition = ",".join(asked.all("if-none-match"))
    if condition and has_tag(condition, tag):
        exchange.respond(304, b"", headers=headers)
        return
    if packed:
        headers["Content-Encoding"] = "gzip"
    exchange.respond(200, asset.packed if packed else asset.body, asset.type, headers)


ROUTES = [
    Route("GET", "/", index, public=True, always=True),
    Route("GET", "/page/{file*}", file, public=True, always=True),
]
