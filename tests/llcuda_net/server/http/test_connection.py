"""One HTTP connection: one request after the other, its limits, and its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.errors import Overloaded, ShuttingDown
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.limits import KEEP_ALIVE, MAX_EARLY, MAX_REQUEST_ID
from llcuda_net.server.http.route import Route
from llcuda_net.telemetry.observers import Observer
from tests.support.server.http_client import HttpPeer, echo, http_rig

POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"


def said(body: bytes) -> Any:
    return json.loads(body)


class Endless:
    """Streams a part a second, until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self.parts = 0

    async def __call__(self, exchange: Exchange) -> None:
        try:
            exchange.begin_stream()
            while True:
                exchange.write(b"data: %d\n\n" % self.parts)
                exchange.flush()
                self.parts += 1
                await trio.sleep(1)
        finally:
            self.cancelled = True


# -- one after the other ------------------------------------------------------------------------


async def test_a_connection_answers_one_request_after_the_other(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        for number in range(3):
            answer = await peer.ask("POST", "/echo", body=b"%d" % number)
            assert said(answer.body)["body"] == str(number)
            assert answer.headers.keys() >= {"date", "server", "x-request-id", "content-length"}
            assert "connection" not in answer.headers
        await trio.sleep(KEEP_ALIVE - 1)
        assert (await peer.ask("GET", "/echo")).status == 200
        begun = trio.current_time()
        assert await peer.rest() == b""
        assert trio.current_time() - begun == KEEP_ALIVE


async def test_path_and_query_are_decoded_once(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        found = said((await peer.ask("GET", "/echo/a%2Fb%2520?q=%C3%A9+x&q=2&e=")).body)
        assert found["parameters"] == {"id": "a/b%20"}
        assert found["query"] == {"q": "2", "e": ""}
        assert (await peer.ask("GET", "/echo/%FF")).status == 400
        assert (await peer.ask("GET", "/echo?q=%FF")).status == 400
        assert (await peer.ask("GET", "/echo/")).status == 404
        assert said((await peer.ask("GET", "http://localhost/echo?a=b")).body)["query"] == {
            "a": "b"
        }
        # The target counts, and Host does not.
        assert (await peer.ask("GET", "http://evil.example/echo")).status == 403
        assert (await peer.ask("CONNECT", "localhost:80")).status == 400
        assert (await peer.ask("GET", "ftp://localhost/echo")).status == 400
        assert (await peer.ask("GET", "http://[/echo")).status == 403
        assert (await peer.ask("GET", "http:///echo")).status == 403


@pytest.mark.parametrize(
    ("sent", "taken"),
    [("mine-1", True), ("x" * MAX_REQUEST_ID, True), ("x" * 129, False), ("\xe9", False)],
)
async def test_the_id_of_a_request_is_sent_back(
    sent: str, taken: bool, autojump_clock: trio.abc.Clock
) -> None:
    async with http_rig() as rig:
        answer = await rig.connect().ask("GET", "/echo", f"X-Request-ID: {sent}")
        assert (answer.headers["x-request-id"] == sent) is taken


async def test_http_1_0_is_answered_and_closed(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(Route("GET", "/parts", parts)) as rig:
        peer = rig.connect()
        await peer.send(b"GET /parts HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = await peer.rest()
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\nonetwo")


async def parts(exchange: Exchange) -> None:
    exchange.begin_stream({"x-llcuda-generation": "g"})
    exchange.write(b"one")
    exchange.write(b"")  # would be the last chunk
    exchange.write(b"two")
    exchange.end_stream()


async def test_head_is_answered_as_get_without_the_body(autojump_clock: trio.abc.Clock) -> None:
    endless = Endless()
    async with http_rig(Route("GET", "/echo", echo), Route("GET", "/events", endless)) as rig:
        peer = rig.connect()
        answer = await peer.ask("HEAD", "/echo")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 0
        answer = await peer.ask("HEAD", "/events")
        assert answer.headers["content-type"] == "text/event-stream"
        assert endless.cancelled
        answer = await peer.ask("HEAD", "/nothing")
        assert (answer.status, answer.body) == (404, b"")


async def test_options_and_methods_that_are_not_there(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        answer = await peer.ask("OPTIONS", "/echo")
        assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        assert (await peer.ask("OPTIONS", "*")).status == 204
        assert (await peer.ask("OPTIONS", "/nothing")).status == 404
        answer = await peer.ask("DELETE", "/echo")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        answer = await peer.ask("GET", "/nothing")
        assert (answer.status, answer.error["code"]) == (404, "not_found")


async def test_a_wrong_base_url_is_told(autojump_clock: trio.abc.Clock) -> None:
    routes = [Route("POST", "/v1/chat", echo)]
    routes += [Route("GET", path, echo) for path in ("/health", "/livez")]
    async with http_rig(*routes) as rig:
        peer = rig.connect()
        for path, hint in {
            "/chat": "'/chat'; did you mean '/v1/chat'?",
            "/v1/v1/chat": "'/v1/v1/chat'; did you mean '/v1/chat'?",
            "/v1/health": "'/v1/health'; did you mean '/health'?",
            "/v1": "'/v1'",
            "/live": "'/live'; did you mean '/livez'?",
            "/api/tags": "'/api/tags'; Ollama's own API is not answered here: use OpenAI's, at /v1",
            "/nothing": "'/nothing'",
        }.items():
            answer = await peer.ask("GET", path)
            assert answer.error["message"] == f"there is nothing at {hint}"


async def test_the_connection_ends_where_the_client_says_so(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig() as rig:
        peer = rig.connect()
        answer = await peer.ask("GET", "/echo", "Connection: keep-alive, Close")
        assert answer.headers["connection"] == "close"
        assert await peer.rest() == b""


# -- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(("size", "status"), [(2048, 200), (2049, 413)])
async def test_a_body_may_be_as_large_as_the_limit(
    framing: str, size: int, status: int, autojump_clock: trio.abc.Clock
) -> None:
    async with http_rig(max_body=2048) as rig:
        peer = rig.connect()
        if framing == "length":
            answer = await peer.ask("POST", "/echo", body=b"x" * size)
        else:
            await peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
            answer = await peer.answer()
        assert answer.status == status
        if status == 413:
            assert "2,048" in answer.error["message"]
            assert answer.headers["connection"] == "close"
        assert rig.host.incoming.waiting == 0


async def test_a_client_that_waits_hears_that_it_may_send_or_why_not(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig(max_body=2048) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await wait_all_tasks_blocked()
        await peer.send(b"ab")
        assert [answer.status for answer in await peer.answers()] == [100, 200]
        await peer.send(POST + b"Expect: 100-Continue\r\nContent-Length: 4096\r\n\r\n")
        assert [answer.status for answer in await peer.answers()] == [413]


async def test_bodies_together_take_no_more_room_than_there_is(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig() as rig:
        share = rig.host.incoming.share
        peer, other = rig.connect(), rig.connect()
        await peer.send(POST + b"Content-Length: %d\r\n\r\n" % share + b"x" * (share - 1))
        await wait_all_tasks_blocked()
        assert rig.host.incoming.waiting > share // 2
        answer = await other.ask("POST", "/echo", body=b"x" * (share - 1))
        assert answer.status == 429
        assert answer.headers["retry-after"]
        await peer.send(b"x")
        assert (await peer.answer()).status == 200
        assert rig.host.incoming.waiting == 0


async def test_who_sends_too_much_can_read_why(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(max_body=1000) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: 1000000\r\n\r\n")
        for _ in range(10):
            await peer.send(b"x" * 100_000)  # fails where the server has closed
            await wait_all_tasks_blocked()
        assert (await peer.answer()).status == 413


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Content-Type: application/json; charset=utf-8", 200),
        ("Content-Type: Application/JSON", 200),
        ("X-Nothing: here", 200),
        ("Content-Type: text/plain", 415),
        ("Content-Type: application/x-www-form-urlencoded", 415),
        ("Content-Encoding: gzip", 415),
    ],
)
async def test_a_body_is_json(line: str, status: int, autojump_clock: trio.abc.Clock) -> None:
    async with http_rig() as rig:
        answer = await rig.connect().ask("POST", "/echo", line, body=b"{}")
        assert answer.status == status


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (HttpError(418, "no", code="teapot"), 418, "teapot"),
        (Overloaded("full", retry=True), 429, "rate_limit_exceeded"),
        (ValueError("secret"), 500, None),
        (None, 500, None),
    ],
)
async def test_what_a_handler_raises_is_the_answer(
    error: Exception | None, status: int, code: str | None, autojump_clock: trio.abc.Clock
) -> None:
    async def fail(exchange: Exchange) -> None:
        if error is not None:
            raise error

    async with http_rig(Route("GET", "/fail", fail)) as rig:
        peer = rig.connect()
        answer = await peer.ask("GET", "/fail")
        assert (answer.status, answer.error["code"]) == (status, code)
        assert "secret" not in answer.error["message"]
        assert (await peer.ask("GET", "/nothing")).status == 404


async def test_a_stream_that_crashes_has_no_end(autojump_clock: trio.abc.Clock) -> None:
    async def crash(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.write(b"one")
        raise ValueError

    async with http_rig(Route("GET", "/crash", crash)) as rig:
        peer = rig.connect()
        await peer.send(b"GET /crash HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await peer.rest()).endswith(b"3\r\none\r\n")


async def test_a_header_cannot_hold_a_line_break(autojump_clock: trio.abc.Clock) -> None:
    async def split(exchange: Exchange) -> None:
        exchange.respond(200, b"", headers={"x-a": "b\r\nx-c: d"})

    async with http_rig(Route("GET", "/split", split)) as rig:
        peer = rig.connect()
        await peer.send(b"GET /split HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"x-c" not in await peer.rest()


# -- the client goes ----------------------------------------------------------------------------


async def begin(peer: HttpPeer) -> None:
    await peer.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await wait_all_tasks_blocked()


async def test_a_client_that_closes_has_gone(autojump_clock: trio.abc.Clock) -> None:
    endless = Endless()
    async with http_rig(Route("GET", "/events", endless)) as rig:
        peer = rig.connect()
        await begin(peer)
        assert rig.connections[0].busy
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
        assert endless.cancelled
        assert not rig.connections[0].busy
        assert rig.host.unsent.waiting == 0


async def test_a_client_that_sends_on_is_answered_and_the_connection_ends(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def slow(exchange: Exchange) -> None:
        await trio.sleep(5)
        exchange.respond(200, b"{}")

    async with http_rig(Route("GET", "/slow", slow)) as rig:
        peer = rig.connect()
        await peer.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await trio.sleep(1)
        await peer.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await peer.answer()).status == 200
        assert await peer.rest() == b""


async def test_a_client_that_floods_is_dropped(autojump_clock: trio.abc.Clock) -> None:
    endless = Endless()
    async with http_rig(Route("GET", "/events", endless)) as rig:
        peer = rig.connect()
        await begin(peer)
        await peer.send(b"x" * (MAX_EARLY + 1))
        await peer.rest()
        assert endless.cancelled


# -- the server ends, and its rules change ------------------------------------------------------


async def test_a_server_that_stops_takes_nothing_new_but_ends_what_runs(
    autojump_clock: trio.abc.Clock,
) -> None:
    async def slow(exchange: Exchange) -> None:
        await trio.sleep(5)
        exchange.respond(200, b"{}")

    async with http_rig(
        Route("GET", "/slow", slow), Route("GET", "/healthz", echo, public=True, always=True)
    ) as rig:
        peer, other, third = rig.connect(), rig.connect(), rig.connect()
        await peer.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_all_tasks_blocked()
        rig.host.draining = True
        answer = await other.ask("GET", "/slow")
        assert (answer.status, answer.error["code"]) == (503, "shutting_down")
        assert answer.headers["retry-after"]
        assert answer.headers["connection"] == "close"
        assert (await third.ask("GET", "/healthz")).status == 200
        assert (await peer.answer()).status == 200
        assert await peer.rest() == b""


async def test_what_still_runs_at_the_end_is_handed_back(autojump_clock: trio.abc.Clock) -> None:
    stopped = []

    async def stream(exchange: Exchange) -> None:
        def stop(error: Exception) -> None:
            stopped.append(error)
            exchange.write(b"sorry")
            exchange.end_stream()
            exchange.scope.cancel()

        exchange.on_stop = stop
        exchange.begin_stream()
        await trio.sleep_forever()

    async def waits(exchange: Exchange) -> None:
        await trio.sleep_forever()

    async with http_rig(Route("GET", "/stream", stream), Route("GET", "/waits", waits)) as rig:
        peers = [rig.connect(), rig.connect()]
        for peer, path in zip(peers, (b"/stream", b"/waits"), strict=True):
            await peer.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        await wait_all_tasks_blocked()
        error = ShuttingDown("later", retry=True)
        for connection in rig.connections:
            connection.hand_back(error)
        assert (await peers[0].answer()).body == b"sorry"
        answer = await peers[1].answer()
        assert (answer.status, answer.error["message"]) == (503, "later")
        assert stopped == [error]


async def test_an_answer_that_is_cut_off_is_no_crash(autojump_clock: trio.abc.Clock) -> None:
    async def download(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.write(b"one")
        exchange.flush()
        await trio.sleep_forever()

    async with http_rig(Route("GET", "/download", download)) as rig:
        peer = rig.connect()
        await peer.send(b"GET /download HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await wait_all_tasks_blocked()
        with capture_logs() as said:
            for connection in rig.connections:
                connection.hand_back(ShuttingDown("later", retry=True))
            assert (await peer.rest()).endswith(b"3\r\none\r\n")
    (cut,) = [one for one in said if "answer" in one["event"] or "crashed" in one["event"]]
    assert (cut["event"], cut["reason"]) == ("http_answer_cut", "later")


async def test_a_request_whose_token_is_taken_away_ends(autojump_clock: trio.abc.Clock) -> None:
    users = Users.parse("token-of-ann-12345 name=ann\ntoken-of-bob-12345 name=bob")
    endless = Endless()
    async with http_rig(Route("GET", "/events", endless), users=users) as rig:
        ann, bob = rig.connect(), rig.connect()
        for peer, name in ((ann, b"ann"), (bob, b"bob")):
            await peer.send(
                b"GET /events HTTP/1.1\r\nHost: x\r\nX-API-Key: token-of-%b-12345\r\n\r\n" % name
            )
        await trio.sleep(1.5)
        users.reload("token-of-bob-12345 name=bob weight=2")
        for connection in rig.connections:
            connection.check_user()
        assert (await ann.rest()).count(b"data: ") > 0
        await trio.sleep(5)
        assert rig.connections[1].busy


async def test_health_is_answered_where_every_place_is_taken(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with http_rig(
        Route("GET", "/echo", echo), Route("GET", "/healthz", echo, public=True, always=True)
    ) as rig:
        rig.places.free = 0
        assert (
            await rig.connect().ask("GET", "/healthz", host=b"Host: 10.1.2.3\r\n")
        ).status == 200
        answer = await rig.connect().ask("GET", "/echo")
        assert (answer.status, answer.headers["connection"]) == (429, "close")


async def test_each_request_is_counted_once(autojump_clock: trio.abc.Clock) -> None:
    counted = []

    class Counts(Observer):
        def http_answered(self, route: str, status: int) -> None:
            counted.append((route, status))

    endless = Endless()
    async with http_rig(Route("GET", "/echo/{id}", echo), Route("GET", "/events", endless)) as rig:
        rig.host.watch.add(Counts())
        peer = rig.connect()
        await peer.ask("GET", "/echo/secret")
        await peer.ask("GET", "/secret")
        await peer.send(b"nonsense\r\n\r\n")
        await peer.answer()
        peer = rig.connect()
        await begin(peer)
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
    assert counted == [("/echo/{id}", 200), ("other", 404), ("other", 400), ("/events", 200)]
