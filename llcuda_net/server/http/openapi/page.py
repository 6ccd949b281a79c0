"""What the routes of the page give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llcuda_net.server.http.openapi.operations import Operation, query
from llcuda_net.server.http.page.files import Root
from llcuda_net.server.http.page.signing import SignIn


class Capabilities(msgspec.Struct):
    """What there is on this server for who is signed in."""

    history: bool
    semantic: bool
    models: bool
    max_body: int


class SessionUser(msgspec.Struct):
    """Who one is; the name is empty where users have none."""

    name: str
    admin: bool


class SessionView(msgspec.Struct):
    """Who asks; `user` is null where a token is needed first, and then `sign_in` says so."""

    object: Literal["session"]
    user: SessionUser | None
    sign_in: Literal["token"] | None
    expires_at: int | None
    starting: str | None
    version: str | None
    capabilities: Capabilities | None


class SessionDeleted(msgspec.Struct):
    """How many sessions have ended."""

    object: Literal["session.deleted"]
    deleted: int


_COOKIE = {"Set-Cookie": "the session's id, HttpOnly and SameSite=Strict"}
_ALL: dict[str, Any] = {"enum": ["true", "false"], "default": "false"}
#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(
        "page", Root, contents={"text/html": "the page, for browsers"}, errors=(404,)
    ),
    ("GET", "/page/{file*}"): Operation(
        "page",
        None,
        contents={
            "text/css": "a style sheet",
            "text/javascript": "an ES module",
            "image/svg+xml": "a picture",
        },
        errors=(404,),
    ),
    ("POST", "/v1/session"): Operation(
        "page",
        SessionView,
        SignIn,
        example={"token": "a token of the server's token file"},
        headers=_COOKIE,
        errors=(404, 409),
    ),
    ("GET", "/v1/session"): Operation("page", SessionView, headers=_COOKIE, errors=(404,)),
    ("DELETE", "/v1/session"): Operation(
        "page",
        SessionDeleted,
        parameters=(query("all", "those of all browsers of this user", _ALL),),
        headers=_COOKIE,
        errors=(404,),
    ),
}
