"""/v1/session: signing in and out over HTTP, and what a request with the cookie may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.page import files, signing
from llcuda_net.server.http.route import Route
from tests.support.server.http_client import Answer, HttpPeer, HttpRig, echo, http_rig

ANN, BOB, WEB = "token-of-ann-12345", "token-of-bob-12345", "token-of-web-12345"
TOKENS = f"{ANN} name=ann role=admin\n{BOB} name=bob\n{WEB} name=web forwards=1\n"
OWN = "Origin: http://localhost:9000"
JSON = "Content-Type: application/json"
#: Of requests that another page has a browser send.
FOREIGN = (
    "Origin: null",
    "Origin: http://localhost:9001",
    "Origin: http://localhost",
    "Origin: https://evil.example",
    "Origin: http://localhost:9000.evil.example",
    "Origin: file://",
    "Origin:",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: what",
)


async def hang(exchange: Exchange) -> None:
    """Answers nothing until it is cancelled."""
    await trio.sleep_forever()


ROUTES = [
    *files.ROUTES,
    *signing.ROUTES,
    Route("GET", "/echo", echo),
    Route("POST", "/echo", echo),
    Route("DELETE", "/echo", echo),
    Route("GET", "/hang", hang),
]


@asynccontextmanager
async def server(tokens: str | None = TOKENS, **settings: Any) -> AsyncIterator[HttpRig]:
    users = Users() if tokens is None else Users.parse(tokens)
    async with http_rig(*ROUTES, users=users, **settings) as rig:
        yield rig


async def sign_in(peer: HttpPeer, token: str = ANN, *lines: str, **options: Any) -> Answer:
    body = json.dumps({"token": token}).encode()
    return await peer.ask("POST", "/v1/session", JSON, *lines, body=body, **options)


def cookie(answer: Answer) -> str:
    """The header field with which a browser sends it back."""
    return f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"


def body(answer: Answer) -> dict[str, Any]:
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


async def test_in_and_out(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        peer = rig.connect()
        answer = await peer.ask("GET", "/v1/session")
        nobody = body(answer)
        assert (nobody["user"], nobody["sign_in"], nobody["version"]) == (None, "token", None)
        assert (await peer.ask("GET", "/echo")).status == 401
        answer = await sign_in(peer, ANN, OWN)
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert ANN not in answer.headers["set-cookie"]
        mine = cookie(answer)
        known = body(answer)
        assert known["user"] == {"name": "ann", "admin": True}
        assert known["capabilities"]["max_body"] == rig.host.settings.max_body
        assert body(await peer.ask("GET", "/v1/session", mine)) == known
        answer = await peer.ask("GET", "/echo", mine)
        assert body(answer)["user"] == "ann"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        answer = await peer.ask("DELETE", "/v1/session", mine, OWN)
        assert body(answer) == {"object": "session.deleted", "deleted": 1}
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await peer.ask("GET", "/echo", mine)).status == 401
        assert body(await peer.ask("GET", "/v1/session", mine))["user"] is None


async def test_a_token_in_the_head_goes_before_a_cookie(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        peer = rig.connect()
        mine = cookie(await sign_in(peer))
        for name in ("Authorization: Bearer", "x-api-key:"):
            assert body(await peer.ask("GET", "/echo", mine, f"{name} {BOB}"))["user"] == "bob"
            assert (await peer.ask("GET", "/echo", mine, f"{name} wrong")).status == 401
            assert (await peer.ask("GET", "/v1/session", mine, f"{name} wrong")).status == 401
        shown = body(await peer.ask("GET", "/v1/session", f"x-api-key: {BOB}"))
        assert (shown["user"]["name"], shown["expires_at"]) == ("bob", None)


async def test_out_everywhere_ends_what_is_open(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        peer, other, third = rig.connect(), rig.connect(), rig.connect()
        mine, elsewhere = cookie(await sign_in(peer)), cookie(await sign_in(other))
        bob = cookie(await sign_in(third, BOB))
        ends, stays = rig.connect(), rig.connect()
        for hanging, field in ((ends, elsewhere), (stays, bob)):
            await hanging.send(
                f"GET /hang HTTP/1.1\r\nHost: localhost:9000\r\n{field}\r\n\r\n".encode()
            )
        await trio.testing.wait_all_tasks_blocked()
        answer = await peer.ask("DELETE", "/v1/session?all=true", mine, OWN)
        assert body(answer)["deleted"] == 2
        with trio.fail_after(60):
            assert (await ends.answer()).status == 401
        assert (await other.ask("GET", "/echo", elsewhere)).status == 401
        assert (await third.ask("GET", "/echo", bob)).status == 200
        with trio.move_on_after(5) as waited:
            await stays.answer()
        assert waited.cancelled_caught
        assert (await peer.ask("DELETE", "/v1/session?all=1", bob, OWN)).status == 400
        assert (await peer.ask("DELETE", "/v1/session?al=true", bob, OWN)).status == 400


@pytest.mark.parametrize("line", FOREIGN)
async def test_no_other_page_may_use_it(line: str, autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        peer = rig.connect()
        mine = cookie(await sign_in(peer))
        for method, path in (
            ("GET", "/echo"),
            ("HEAD", "/echo"),
            ("POST", "/echo"),
            ("DELETE", "/echo"),
            ("DELETE", "/v1/session"),
            ("GET", "/v1/session"),
        ):
            answer = await rig.connect().ask(method, path, mine, line)
            assert answer.status == 403, (method, path)
        answer = await rig.connect().ask("POST", "/echo", mine, OWN, line)
        assert answer.status == 403
        assert (await sign_in(rig.connect(), ANN, line)).status == 403


async def test_what_changes_something_shows_where_it_is_from(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect()))
        for fields, status in (
            ((), 403),
            ((OWN,), 200),
            (("Sec-Fetch-Site: same-origin",), 200),
            (("Sec-Fetch-Site: none",), 403),
            ((OWN, "Sec-Fetch-Site: same-origin"), 200),
        ):
            answer = await rig.connect().ask("POST", "/echo", mine, *fields)
            assert answer.status == status, fields
        for fields in ((), (OWN,), ("Sec-Fetch-Site: none",), ("Sec-Fetch-Site: same-origin",)):
            assert (await rig.connect().ask("GET", "/echo", mine, *fields)).status == 200


async def test_an_origin_that_may_read_may_not_use_a_session(
    autojump_clock: trio.abc.Clock,
) -> None:
    origin = "Origin: https://chat.example"
    async with server(cors_origin=("https://chat.example",)) as rig:
        mine = cookie(await sign_in(rig.connect()))
        assert (await rig.connect().ask("GET", "/echo", mine, origin)).status == 403
        answer = await rig.connect().ask("GET", "/echo", mine, origin, f"x-api-key: {ANN}")
        assert answer.status == 200
        assert "access-control-allow-credentials" not in answer.headers


async def test_the_cookie_is_of_one_port(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect()))
        assert mine.startswith("Cookie: llcuda_9000=")
        answer = await rig.connect().ask("GET", "/echo", mine, host=b"Host: localhost:9001\r\n")
        assert answer.status == 401


async def test_behind_a_proxy_with_tls_it_is_for_tls_only(autojump_clock: trio.abc.Clock) -> None:
    host = b"Host: chat.example\r\n"
    async with server() as rig:
        peer = rig.connect()
        answer = await sign_in(peer, ANN, "Origin: https://chat.example", host=host)
        mine = cookie(answer)
        assert mine.startswith("Cookie: __Host-llcuda_443=")
        assert "; Secure" in answer.headers["set-cookie"]
        for origin, status in (("https://chat.example", 200), ("http://chat.example", 403)):
            answer = await rig.connect().ask("POST", "/echo", mine, f"Origin: {origin}", host=host)
            assert answer.status == status
        # Of one that anybody between could have set, and one that only we can, the latter counts.
        bob = cookie(await sign_in(rig.connect(), BOB, host=host))
        assert bob.startswith("Cookie: llcuda_80=")
        both = f"{bob}; {mine.removeprefix('Cookie: ')}"
        assert body(await rig.connect().ask("GET", "/echo", both, host=host))["user"] == "ann"


async def test_signing_in_again_ends_what_was_there(autojump_clock: trio.abc.Clock) -> None:
    """So an id that somebody else has put into a browser is of no use to them."""
    async with server() as rig:
        peer = rig.connect()
        planted = cookie(await sign_in(peer, BOB))
        mine = cookie(await sign_in(peer, ANN, planted, OWN))
        assert mine != planted
        assert (await peer.ask("GET", "/echo", planted)).status == 401
        assert body(await peer.ask("GET", "/echo", mine))["user"] == "ann"


async def test_of_two_cookies_of_a_name_none_counts(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        peer = rig.connect()
        ann, bob = cookie(await sign_in(peer)), cookie(await sign_in(peer, BOB))
        for fields in (
            (ann, bob),
            (f"{ann}; {bob.removeprefix('Cookie: ')}",),
        ):
            assert (await peer.ask("GET", "/echo", *fields)).status == 401
        assert (await peer.ask("GET", "/echo", f"{ann}; llcuda_9000=planted")).status == 200
        assert (await peer.ask("GET", "/echo", "Cookie: \xff=\xfe; =; llcuda_9000")).status == 401


async def test_a_session_is_as_its_token(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect(), WEB))
        named = "X-OpenWebUI-User-Id: 7"
        assert body(await rig.connect().ask("GET", "/echo", mine, named))["user"] == "web/7"
        bob = cookie(await sign_in(rig.connect(), BOB))
        assert body(await rig.connect().ask("GET", "/echo", bob, named))["user"] == "bob"


async def test_a_token_that_is_gone_ends_what_is_open(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect(), BOB))
        peer = rig.connect()
        await peer.send(f"GET /hang HTTP/1.1\r\nHost: localhost:9000\r\n{mine}\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked()
        rig.host.users.reload(f"{ANN} name=ann\n")
        rig.check_users()
        with trio.fail_after(60):
            assert (await peer.answer()).status == 401
        assert (await rig.connect().ask("GET", "/echo", mine)).status == 401


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"token": ""}', 400),
        (b'{"token": 1}', 400),
        (b'{"token": null}', 400),
        (b'{"token": "a", "token": "b"}', 400),
        (b'{"token": "a", "user": "b"}', 400),
        (b'{"token": "\\ud800"}', 400),
        (b'{"token": "%s"}' % (b"x" * 5000), 400),
        (b'{"token": "%s"}' % (b"x" * (1 << 20)), 413),
        (b'{"token": "wrong"}', 401),
        (b'{"token": " %s\\n"}' % ANN.encode(), 200),
    ],
)
async def test_bodies(sent: bytes, status: int, autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        answer = await rig.connect().ask("POST", "/v1/session", JSON, body=sent)
        assert answer.status == status
        assert status == 200 or answer.error["message"]


async def test_a_body_that_is_no_json_is_not_read(autojump_clock: trio.abc.Clock) -> None:
    """A form of another page needs no leave of ours to send one."""
    async with server() as rig:
        sent = json.dumps({"token": ANN}).encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            line = f"Content-Type: {kind}"
            answer = await rig.connect().ask("POST", "/v1/session", line, body=sent)
            assert answer.status == 415


async def test_who_is_not_known_takes_no_place_and_no_memory(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with server() as rig:
        rig.places.free = 0
        slow = rig.connect()
        head = f"POST /v1/session HTTP/1.1\r\nHost: localhost:9000\r\n{JSON}\r\n"
        await slow.send(f"{head}Content-Length: 4000\r\n\r\n{{".encode())
        mine = cookie(await sign_in(rig.connect()))
        assert (await rig.connect().ask("GET", "/echo", mine)).status == 429
        rig.places.free = 1
        for path in ("/", "/page/js/main.js", "/v1/session"):
            peer = rig.connect()
            await peer.send(
                f"GET {path} HTTP/1.1\r\nHost: localhost:9000\r\n"
                "Content-Length: 20000000\r\n\r\n".encode()
            )
            answer = await peer.answer()  # nothing of the body is waited for
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert (await slow.answer()).status == 408


async def test_no_log_shows_a_token_or_an_id(autojump_clock: trio.abc.Clock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with server(log_level="debug") as rig:
            peer = rig.connect()
            mine = cookie(await sign_in(peer))
            await sign_in(rig.connect(), "token-that-is-wrong")
            await peer.ask("GET", "/echo", mine)
            await peer.ask("DELETE", "/v1/session", mine, OWN)
    said = str(logs)
    assert {"signed_in", "signed_out", "sign_in_refused"} <= {one["event"] for one in logs}
    assert ANN not in said
    assert "token-that-is-wrong" not in said
    assert mine.partition("=")[2] not in said


async def test_without_a_token_file_nobody_needs_to(autojump_clock: trio.abc.Clock) -> None:
    async with server(None) as rig:
        known = body(await rig.connect().ask("GET", "/v1/session"))
        assert known["user"] == {"name": "", "admin": True}
        assert (known["sign_in"], known["expires_at"]) == (None, None)
        answer = await sign_in(rig.connect())
        assert (answer.status, answer.error["code"]) == (409, "no_sign_in")
        answer = await rig.connect().ask("DELETE", "/v1/session", OWN)
        assert body(answer)["deleted"] == 0


@pytest.mark.parametrize("line", [*FOREIGN[:-1], "Host: evil.example"])
async def test_without_a_token_file_no_other_page_gets_in(
    line: str, autojump_clock: trio.abc.Clock
) -> None:
    async with server(None) as rig:
        host = {"host": f"{line}\r\n".encode()} if line.startswith("Host") else {}
        fields = () if host else (line,)
        for method, path in (
            ("GET", "/echo"),
            ("POST", "/echo"),
            ("DELETE", "/echo"),
            ("GET", "/v1/session"),
            ("DELETE", "/v1/session"),
        ):
            answer = await rig.connect().ask(method, path, *fields, **host)
            assert answer.status == 403, (method, path)
        assert (await sign_in(rig.connect(), ANN, *fields, **host)).status == 403


async def test_no_page_no_session(autojump_clock: trio.abc.Clock) -> None:
    async with server(page=False) as rig:
        assert (await sign_in(rig.connect())).status == 404
        assert (await rig.connect().ask("GET", "/v1/session")).status == 404
        found = await rig.sessions.begin(ANN)
        assert found is not None
        mine = f"Cookie: llcuda_9000={found.id}"
        assert (await rig.connect().ask("GET", "/echo", mine)).status == 401


async def test_http_1_0_and_head(autojump_clock: trio.abc.Clock) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect()))
        peer = rig.connect()
        await peer.send(f"GET /echo HTTP/1.0\r\nHost: localhost:9000\r\n{mine}\r\n\r\n".encode())
        assert (await peer.answer()).status == 200
        peer = rig.connect()
        await peer.send(f"GET /echo HTTP/1.0\r\n{mine}\r\n\r\n".encode())  # of which server?
        assert (await peer.answer()).status == 401
        assert (await rig.connect().ask("HEAD", "/v1/session", mine)).status == 200


async def test_early_in_a_start_a_cookie_waits_and_a_token_does_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with server() as rig:
        mine = cookie(await sign_in(rig.connect()))
        rig.sessions._loaded = trio.Event()
        assert (await rig.connect().ask("GET", "/echo", f"x-api-key: {ANN}")).status == 200
        assert body(await rig.connect().ask("GET", "/v1/session"))["user"] is None
        answers = []

        async def ask(path: str) -> None:
            answers.append(await rig.connect().ask("GET", path, mine))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "/echo")
            nursery.start_soon(ask, "/v1/session")
            await trio.sleep(1)
            assert not answers
            rig.sessions._loaded.set()
        assert [body(one)["user"] for one in answers if b'"path"' in one.body] == ["ann"]
        assert [one.status for one in answers] == [200, 200]
