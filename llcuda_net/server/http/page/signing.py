"""/v1/session: sign in with a token, be told who one is, sign out."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import structlog
from msgspec import Meta

from llcuda_net.server.http.access import PRIVATE, Caller
from llcuda_net.server.http.errors import AUTHENTICATION, HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert
from llcuda_net.server.http.page import cookies
from llcuda_net.server.http.page.files import check_on
from llcuda_net.server.http.page.sessions import SignedIn
from llcuda_net.server.http.request import check_names
from llcuda_net.server.http.route import Route
from llcuda_net.util.version import package_version

log = structlog.get_logger(__name__)

#: Bytes of a body: nobody has to be known to send one.
MOST_BODY = 8 << 10


class SignIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/session: a token of the server's token file."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)]


async def sign_in(exchange: Exchange) -> None:
    """Begin a session with a token; the answer sets its cookie."""
    check_on(exchange)
    request, host = exchange.request, exchange.host
    check_names(request.query, ())
    if not host.users.required:
        host.access.check(request)  # or it may not come in at all
        message = "this server has no token file: nobody needs to sign in"
        raise HttpError(409, message, code="no_sign_in")
    host.access.check_own(request)
    token = await _token(exchange)
    await host.access.ready(request)
    made = await host.sessions.begin(token, host.access.session(request))
    if made is None:
        log.warning("sign_in_refused", id=request.id)
        raise HttpError(
            401,
            "the token is wrong: it must be one of the server's token file",
            type=AUTHENTICATION,
            param="token",
            code="invalid_api_key",
        )
    made = made._replace(cookie=_cookie(exchange))
    _respond(exchange, Caller(made.user, made), made)


async def show(exchange: Exchange) -> None:
    """Who one is, and what one may do; for who is nobody yet, that a token is needed."""
    check_on(exchange)
    request, host = exchange.request, exchange.host
    check_names(request.query, ())
    await host.access.ready(request)
    try:
        caller = host.access.check(request)
    except HttpError as error:
        given = {"authorization", "x-api-key"} & {*request.headers}
        if error.status != 401 or given:  # a token that is wrong is to be heard of
            raise
        _respond(exchange, None)
        return
    renewed = None if caller.session is None else await host.sessions.renew(caller.session)
    _respond(
        exchange,
        caller._replace(session=renewed),
        None if renewed is caller.session else renewed,
    )


async def sign_out(exchange: Exchange) -> None:
    """End the session of this browser; with `all=true`, those of the user everywhere."""
    check_on(exchange)
    request, host = exchange.request, exchange.host
    check_names(request.query, ("all",))
    everywhere = request.query.get("all", "false")
    if everywhere not in ("true", "false"):
        raise HttpError(400, "all is true or false", param="all", code="invalid_request")
    one = host.access.check(request).session
    ended = 0
    if everywhere == "true":
        ended = await host.sessions.end(request.user.name)
    elif one is not None:
        ended = await host.sessions.end(one.session.user, [one.session.hash])
    headers = {} if one is None else cookies.setting(one.cookie, None)
    body = {"object": "session.deleted", "deleted": ended}
    exchange.respond(200, msgspec.json.encode(body), headers=headers)
    if ended:
        host.check_users()  # what reads on by such a session ends now


ROUTES = [
    # Always: who is not known yet takes nobody's place, however slowly a body comes.
    Route("POST", "/v1/session", sign_in, parts=True, public=True, always=True),
    Route("GET", "/v1/session", show, public=True, always=True),
    Route("DELETE", "/v1/session", sign_out),
]


async def _token(exchange: Exchange) -> str:
    """What the body says.

    Raises:
        HttpError: it is no such body.
    """
    read = bytearray()

    async def take(data: bytes) -> None:
        read.extend(data)

    too_many = HttpError(413, f"the body of a sign-in has at most {MOST_BODY:,} bytes")
    await exchange.receive(take, MOST_BODY, too_many)
    return convert(strict_json.parse(bytes(read)), SignIn).token.strip()


def _cookie(exchange: Exchange) -> str:
    """The name of the cookie to set: for TLS only, where the page came over TLS."""
    request = exchange.request
    origin = request.headers.get("origin") or ""
    secure = request.tls or origin.lower().startswith("https://")
    return cookies.name_of(request.authority, secure=secure)


def _respond(exchange: Exchange, caller: Caller | None, set_: SignedIn | None = None) -> None:
    """Answer what is to be known of a caller.

    Args:
        set_: the session whose cookie is set.
    """
    host = exchange.host
    document: dict[str, Any] = {
        "object": "session",
        "user": None,
        "sign_in": "token",
        "expires_at": None,
        "starting": host.startup_reason,
        "version": None,
        "capabilities": None,
    }
    if caller is not None:
        document["user"] = {"name": caller.user.name, "admin": caller.user.admin}
        document["sign_in"] = None
        document["version"] = package_version()
        document["capabilities"] = {
            "history": host.objects.keeps,
            "semantic": host.settings.analysis and host.objects.keeps,
            "models": host.models is not None and caller.user.admin,
            "max_body": host.settings.max_body,
        }
        if caller.session is not None:
            document["expires_at"] = caller.session.session.expires
    headers = dict(PRIVATE)
    if set_ is not None:
        headers |= cookies.setting(set_.cookie, set_.id)
    exchange.respond(200, msgspec.json.encode(document), headers=headers)
