"""Who may come in over HTTP: with a token file by token, without one only this machine."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import structlog
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.server.http import access
from llcuda_net.server.http.access import Access, host_of
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.page.sessions import Sessions
from llcuda_net.server.http.request import Headers, HttpRequest
from llcuda_net.server.objects import KeptObjects
from tests.support.server.http_client import http_rig

TOKENS = """
token-of-ann-12345 name=ann
token-of-web-12345 name=web forwards=1 weight=3 role=admin
"""


def request_of(
    *fields: tuple[str, str],
    method: str = "GET",
    authority: str = "localhost:9000",
    local: str = "127.0.0.1",
    tls: bool = False,
) -> HttpRequest:
    headers = Headers([(name.encode(), value.encode()) for name, value in fields])
    return HttpRequest(method, "/", {}, headers, b"", ANONYMOUS, "req", {}, authority, local, tls)


def rules_of(users: Users, **settings: Any) -> Access:
    return Access(Settings(**settings), users, Sessions(KeptObjects(None), users))


def check(
    *fields: tuple[str, str],
    authority: str = "localhost:9000",
    tokens: str | None = None,
    local: str = "127.0.0.1",
    **settings: Any,
) -> str:
    """The user who came in, or the status of the refusal with its words."""
    users = Users() if tokens is None else Users.parse(tokens)
    request = request_of(*fields, authority=authority, local=local)
    try:
        user = rules_of(users, **settings).check(request).user
    except HttpError as error:
        return f"{error.status} {error.message}"
    return f"user {user.name}{' admin' if user.admin else ''}"


@pytest.mark.parametrize(
    "authority",
    [
        *("localhost", "localhost:9000", "LOCALHOST.", "llcuda.localhost:1", "127.0.0.1:9000"),
        *("127.3.2.1", "[::1]:9000", "10.1.2.3:9000", socket.gethostname()),
    ],
)
def test_this_machine_has_many_names(authority: str) -> None:
    assert check(authority=authority, local="10.1.2.3") == "user  admin"


@pytest.mark.parametrize(
    "authority",
    [
        *("evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.example"),
        *(
            "notlocalhost",
            "10.9.9.9",
            "",
            "localhost@evil.example",
            "[::2]",
            "[::1]evil",
            "[",
            "::1",
        ),
        *("local host", "evil\x1b[31m", "localhost:80:90", "localhost:x"),
    ],
)
def test_a_foreign_name_is_refused(authority: str) -> None:
    refusal = check(authority=authority, local="10.1.2.3")
    assert refusal.startswith("403 ")
    assert "--allowed-host" in refusal
    assert refusal.isprintable()


def test_a_name_may_be_allowed() -> None:
    assert "--allowed-host host.docker.internal" in check(authority="host.docker.internal:9000")
    allowed = ("Host.Docker.Internal",)
    assert check(authority="host.docker.internal:9000", allowed_host=allowed) == "user  admin"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:9000", True),
        ("https://localhost:9000", True),
        ("https://chat.example", True),
        ("https://CHAT.example", True),
        ("http://chat.example", False),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("https://evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_a_foreign_page_is_refused(origin: str, allowed: bool) -> None:
    said = check(("origin", origin), cors_origin=("https://chat.example/",))
    assert said.startswith("user" if allowed else "403 ")
    assert allowed or "--cors-origin" in said


def test_every_origin_counts() -> None:
    own, foreign = ("origin", "http://localhost:9000"), ("origin", "https://evil.example")
    assert check(own, own).startswith("user")
    assert check(own, foreign).startswith("403")
    assert check(foreign, own).startswith("403")


@pytest.mark.parametrize(
    "name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"]
)
def test_behind_a_proxy_a_token_file_is_needed(name: str) -> None:
    refusal = check((name, "for=10.0.0.1"))
    assert refusal.startswith("403 ")
    assert "--auth-token-file" in refusal
    assert check((name, "for=10.0.0.1"), allow_no_auth=True) == "user  admin"
    token = ("authorization", "Bearer token-of-ann-12345")
    assert check((name, "x"), token, tokens=TOKENS) == "user ann"


def test_without_a_token_file_any_key_is_taken() -> None:
    assert check(("authorization", "Bearer sk-anything")) == "user  admin"
    assert check(("x-api-key", "sk-anything")) == "user  admin"


@pytest.mark.parametrize(
    "field",
    [
        ("authorization", "Bearer token-of-ann-12345"),
        ("authorization", "bearer  token-of-ann-12345 "),
        ("x-api-key", "token-of-ann-12345"),
    ],
)
def test_a_token_names_its_user_whatever_the_host(field: tuple[str, str]) -> None:
    origin = ("origin", "https://somewhere.example")
    assert check(field, origin, authority="evil.example", tokens=TOKENS) == "user ann"


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer")],
        [("authorization", "Basic token-of-ann-12345")],
        [("authorization", "token-of-ann-12345")],
        [("authorization", "Bearer token-of-ann-12345")] * 2,
        [("authorization", "Bearer wrong"), ("x-api-key", "token-of-ann-12345")],
        [("x-api-key", "")],
        [("x-api-key", "tökén")],
    ],
)
def test_with_a_token_file_this_machine_has_no_privilege(fields: list[tuple[str, str]]) -> None:
    refusal = check(*fields, tokens=TOKENS)
    assert refusal.startswith("401 ")
    assert "token-of" not in refusal


def test_only_a_token_that_forwards_names_users() -> None:
    ann, web = (("x-api-key", f"token-of-{name}-12345") for name in ("ann", "web"))
    named = ("x-openwebui-user-id", "4f3c-9")
    assert check(ann, named, tokens=TOKENS) == "user ann"
    assert check(web, named, tokens=TOKENS) == "user web/4f3c-9"  # and no admin
    assert check(web, ("x-openwebui-user-email", "a@b.de"), tokens=TOKENS) == "user web/a@b.de"
    assert check(web, tokens=TOKENS) == "user web admin"
    assert check(named) == "user  admin"
    for wrong in ("", "a b", "a/b", "x" * 65, "ü", "a\n"):
        assert check(web, ("x-openwebui-user-id", wrong), tokens=TOKENS).startswith("400 ")


def test_users_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_FORWARDED", 2)
    rules = rules_of(Users.parse(TOKENS))

    def name(id_: str) -> str:
        fields = (("x-api-key", "token-of-web-12345"), ("x-openwebui-user-id", id_))
        return rules.check(request_of(*fields)).user.name

    assert [name("1"), name("2"), name("1")] == ["web/1", "web/2", "web/1"]
    with pytest.raises(HttpError) as caught:
        name("3")
    assert caught.value.status == 429
    assert name("2") == "web/2"


@pytest.mark.parametrize(
    ("authority", "host"),
    [("A.b:1", "a.b"), ("[::1]:1", "::1"), ("[::1", ""), ("a:b", ""), ("a b", ""), ("a.:", "a")],
)
def test_the_host_of_an_authority(authority: str, host: str) -> None:
    assert host_of(authority) == host


async def test_a_browser_may_ask_what_a_page_may_send(autojump_clock: trio.abc.Clock) -> None:
    ask = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    async with http_rig(cors_origin=("https://chat.example",)) as rig:
        peer = rig.connect()
        answer = await peer.ask("OPTIONS", "/echo", "Origin: https://chat.example", *ask)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert answer.headers["access-control-allow-headers"] == "authorization"
        assert "POST" in answer.headers["access-control-allow-methods"]
        answer = await peer.ask("OPTIONS", "/echo", "Origin: https://evil.example", *ask)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        answer = await peer.ask("GET", "/echo", "Origin: https://chat.example")
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert answer.headers["vary"] == "Origin"
        answer = await peer.ask("GET", "/nothing", "Origin: https://chat.example")
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"


async def test_the_401_says_how_to_come_in(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(users=Users.parse(TOKENS)) as rig:
        answer = await rig.connect().ask("GET", "/echo")
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        answer = await rig.connect().ask("GET", "/echo", "x-api-key: token-of-ann-12345")
        assert answer.status == 200


async def test_the_log_tells_of_wrong_keys_and_shows_none(autojump_clock: trio.abc.Clock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with http_rig(users=Users.parse(TOKENS)) as rig:
            for fields in ((), ("x-api-key: wrong",), ("Authorization: Bearer wrong",)):
                assert (await rig.connect().ask("GET", "/echo", *fields)).status == 401
    told = [one for one in logs if one["event"] == "unauthorized"]
    assert [one["token_given"] for one in told] == [False, True, True]
    assert {one["log_level"] for one in told} == {"warning"}
    assert "wrong" not in str(told)


@pytest.mark.parametrize(("tls", "status"), [(False, "user"), (True, "403")])
def test_over_tls_a_page_without_is_another(tls: bool, status: str) -> None:
    """One who is between can serve it, and must get nothing by it."""
    for scheme, expected in (("https", "user"), ("http", status)):
        request = request_of(("origin", f"{scheme}://localhost:9000"), tls=tls)
        try:
            said = f"user {rules_of(Users()).check(request).user.name}"
        except HttpError as error:
            said = str(error.status)
        assert said.startswith(expected), scheme


@pytest.mark.parametrize(
    ("site", "allowed"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)],
)
def test_what_a_page_has_loaded_without_an_origin_is_refused(site: str, allowed: bool) -> None:
    """Such as pictures and scripts, and what a link leads to."""
    said = check(("sec-fetch-site", site), cors_origin=("https://chat.example",))
    assert said.startswith("user" if allowed else "403")
    origin = ("origin", "https://chat.example")
    said = check(("sec-fetch-site", site), origin, cors_origin=("https://chat.example",))
    assert said.startswith("user")
    token = ("x-api-key", "token-of-ann-12345")
    assert check(("sec-fetch-site", site), token, tokens=TOKENS) == "user ann"
