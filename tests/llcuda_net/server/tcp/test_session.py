"""Sessions: what a client may say, and what comes back when it says it wrong."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.errors import UpstreamError
from llcuda_net.server.tcp.session import Session
from llcuda_net.server.tcp.write_buffer import HIGH_WATER
from llcuda_protocol import (
    PREFACE,
    Accepted,
    Cancel,
    ConnectionClosed,
    Credit,
    Done,
    Embed,
    Error,
    ErrorCode,
    Generate,
    Hello,
    Ping,
    Pong,
    Report,
    Status,
    Tokens,
    Vectors,
)
from llcuda_protocol.frames import encode
from tests.support.server.memory_server import CREDIT, FakeUpstream, ask, serving


async def _read_all(stream: trio.abc.Stream) -> bytes:
    data = b""
    while more := await stream.receive_some(65_536):
        data += more
    return data


async def test_an_answer_streams_and_ends_with_its_figures(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        welcome = await peer.greet()
        features = "generate attach embed status search list pool splice channels uploads"
        assert welcome.features == [*features.split(), "delete", "ignored", "previous", "transient"]
        assert welcome.max_upload is not None
        assert welcome.max_upload > 1 << 20
        await peer.send(ask("one two three", tokens=True))
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        first = await peer.next()
        assert isinstance(first, Tokens)
        assert first.ids is not None
        pieces, done = await peer.until(Done)
        assert "".join(first.pieces + pieces) == "one two three"
        assert isinstance(done, Done)
        assert (done.reason, done.id) == ("stop", accepted.id)
        assert done.usage == {"completion_tokens": 3, "prompt_tokens": 7, "cached_tokens": 0}
        assert done.timings["prompt"] == 1.5
        assert {"queue", "connect", "first_token", "generation", "total"} <= set(done.timings)


async def test_messages_go_through_the_template(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
        await peer.send(Generate(1, CREDIT, messages=messages))
        _, done = await peer.until(Done)
        assert upstream.prompts == ["system: be brief user: hi"]
        assert "template" in done.timings


async def test_a_model_without_a_template_takes_one_message_only(autojump_clock: object) -> None:
    upstream = FakeUpstream(template=False)
    async with serving(upstream) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        one = [{"role": "user", "content": "as it is"}]
        await peer.send(Generate(1, CREDIT, messages=one))
        await peer.until(Done)
        assert upstream.prompts == ["as it is"]
        await peer.send(Generate(3, CREDIT, messages=[*one, *one]))
        _, error = await peer.until(Error, 3)
        assert error.code == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"params": {"temprature": 1}}, "unknown_parameter", "did you mean temperature"),
        ({"params": {"n_predict": -1}}, "invalid_request", "n_predict must be"),
        ({"params": {"n_predict": 0}}, "invalid_request", "n_predict must be"),
        ({"params": {"n_predict": 513}}, "invalid_request", "1 to 512"),
        ({"params": {"n_predict": 1 << 62}}, "invalid_request", "n_predict must be"),
        ({"params": {"temperature": "hot"}}, "invalid_request", "temperature must be a number"),
        ({"params": {"top_p": 1.5}}, "invalid_request", "top_p must be 0 to 1"),
        ({"params": {"stop": [""]}}, "invalid_request", "stop"),
        ({"params": {"grammar": "x", "json_schema": {}}}, "invalid_request", "not both"),
        ({"text": ""}, "invalid_request", "the prompt is empty"),
        ({"messages": [{"role": "user", "content": "x"}]}, "invalid_request", "one of the two"),
    ],
)
async def test_a_wrong_request_is_refused_by_name_and_the_session_lives(
    changes: dict[str, Any], code: str, words: str, autojump_clock: object
) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask(**changes))
        error = await peer.next()
        assert isinstance(error, Error)
        assert error.code == code
        assert words in error.message
        assert "\n" not in error.message
        assert upstream.calls == []
        await peer.send(ask(stream=3))
        await peer.until(Done, 3)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"G", b"POST /completion HTTP/1.1\r\n"]
)
async def test_http_is_answered_as_http_where_it_is_off(
    first: bytes, autojump_clock: object
) -> None:
    async with serving(FakeUpstream(), http=False) as (_, listener):
        peer = listener.connect()
        await peer.stream.send_all(first)
        answer = await _read_all(peer.stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"llcuda-client" in answer


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01", ErrorCode.BAD_PREFACE),
        (b"\x89PNG\r\n\x1a\n", ErrorCode.BAD_PREFACE),
        (PREFACE + b"\xff\xff\xff\xff", ErrorCode.FRAME_TOO_LARGE),
        (PREFACE + b"\x00\x00\x00\x02\xc1\xc1", ErrorCode.MALFORMED_FRAME),
        (PREFACE + b"\x00\x00\x00\x03\x92\x63\x00", ErrorCode.UNKNOWN_KIND),
        (PREFACE + b"\x00\x00\x00\x04\x93\x08\x00\xc4", ErrorCode.MALFORMED_FRAME),
        (PREFACE + b"\x00\x00\x00\x05\x93\x08\x00\xc4\x00", ErrorCode.UNEXPECTED_FRAME),
    ],
)
async def test_malformed_bytes_are_answered_with_their_error(
    sent: bytes, code: ErrorCode, autojump_clock: object
) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        for chunks in ([sent], [sent[i : i + 1] for i in range(len(sent))]):
            peer = listener.connect()
            for chunk in chunks:
                try:
                    await peer.stream.send_all(chunk)
                except trio.BrokenResourceError:
                    break  # refused before the last byte
            answer = await _read_all(peer.stream)
            assert answer.startswith(PREFACE)
            assert code.encode() in answer


async def test_a_truncated_frame_is_told_so(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        await peer.stream.send_all(PREFACE + b"\x00\x00\x01\x00\x93")
        assert isinstance(peer.stream, trio.StapledStream)
        await peer.stream.send_eof()
        assert ErrorCode.TRUNCATED_FRAME.encode() in await _read_all(peer.stream)


async def test_another_version_is_refused(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        await peer.send(Hello([1], 1 << 20, 8))
        assert await peer.next()
        other = listener.connect()
        data = other.connection.send(Hello([1], 1 << 20, 8)).replace(b"\x91\x01", b"\x91\x63")
        await other.stream.send_all(data)
        assert ErrorCode.UNSUPPORTED_VERSION.encode() in await _read_all(other.stream)


@pytest.mark.parametrize("token", [None, "", "wrong", "secre", "secrett", "sécret"])
async def test_a_wrong_token_is_refused(token: str | None, autojump_clock: object) -> None:
    async with serving(FakeUpstream(), users=Users.parse("other\nsecret")) as (_, listener):
        peer = listener.connect()
        await peer.send(Hello([1], 1 << 20, 8, token))
        error = await peer.next()
        assert isinstance(error, Error)
        assert (error.stream, error.code) == (0, ErrorCode.UNAUTHORIZED)
        assert isinstance(await peer.next(), ConnectionClosed)
        allowed = listener.connect()
        await allowed.greet("secret")


async def test_silence_ends_with_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(FakeUpstream(), handshake_timeout=5.0) as (_, listener):
        peer = listener.connect()
        start = trio.current_time()
        assert ErrorCode.HANDSHAKE_TIMEOUT.encode() in await _read_all(peer.stream)
        assert trio.current_time() - start == pytest.approx(5.0)


async def test_a_crowd_in_the_handshake_ends_its_oldest(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        crowd = [listener.connect() for _ in range(300)]
        await trio.testing.wait_all_tasks_blocked()
        served = listener.connect()
        await served.greet()
        assert await crowd[0].stream.receive_some(1) == b""
        await crowd[-1].greet()


async def test_too_many_clients_are_told_to_come_back(autojump_clock: object) -> None:
    async with serving(FakeUpstream(), max_connections=2) as (_, listener):
        for _ in range(2):
            await listener.connect().greet()
        late = listener.connect()
        await late.send(Hello([1], 1 << 20, 8))
        error = await late.next()
        assert isinstance(error, Error)
        assert (error.code, error.retry) == (ErrorCode.TOO_MANY_CONNECTIONS, True)


async def test_ping_status_and_embed(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(Ping(b"abc"))
        assert await peer.next() == Pong(b"abc")
        await peer.send(Embed(1, ["four", "sixsix"]))
        assert await peer.next() == Vectors(
            1, 0, [struct.pack("<2f", 4, 1), struct.pack("<2f", 6, 1)]
        )
        assert isinstance(await peer.next(), Done)
        await peer.send(Status(2))
        report = await peer.next()
        assert isinstance(report, Report)
        assert report.report["connections"] == 1
        assert report.report["upstreams"][0]["model"] == "fake"


async def test_cancel_ends_the_stream_and_the_upstreams_work(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    async with serving(upstream) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask("a b c d e"))
        upstream.release(2)
        while not isinstance(await peer.next(), Tokens):
            pass
        await peer.send(Cancel(1))
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        assert upstream.active == 0
        late = encode(Cancel(1)) + encode(Credit(1, 10))
        await peer.stream.send_all(late)  # they crossed the end on the wire
        await peer.send(Ping(b""))
        assert isinstance(await peer.next(), Pong)


async def test_cancel_ends_a_stream_that_has_no_credit(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask("a b c", credit=0))
        assert isinstance(await peer.next(), Accepted)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(Cancel(1))
        assert isinstance(await peer.next(), Done)


async def test_a_lost_client_frees_its_slot(autojump_clock: object) -> None:
    upstream = FakeUpstream(slots=1)
    upstream.paused = True
    async with serving(upstream, disconnect_seconds=0) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask())
        assert isinstance(await peer.next(), Accepted)
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.active == 1
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.active == 0


async def test_no_credit_no_tokens_and_the_log_catches_up(autojump_clock: object) -> None:
    text = " ".join(str(i) for i in range(200))
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask(text, credit=0))
        assert isinstance(await peer.next(), Accepted)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(Ping(b"x"))
        assert isinstance(await peer.next(), Pong)  # and no tokens before it
        got = ""
        while True:
            await peer.send(Credit(1, 100))
            event = await peer.next()
            if isinstance(event, Done):
                break
            assert isinstance(event, Tokens)
            got += "".join(event.pieces)
        assert got == text


async def test_fifty_streams_flow_past_a_stalled_one(autojump_clock: object) -> None:
    text = " ".join(str(i) for i in range(100))
    async with serving(FakeUpstream(slots=64)) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask(text, stream=1, credit=200))
        for number in range(2, 52):
            await peer.send(ask(text, stream=number))
        texts = dict.fromkeys(range(1, 52), "")
        ended: set[int] = set()
        while len(ended) < 50:
            event = await peer.next()
            if isinstance(event, Tokens):
                texts[event.stream] += "".join(event.pieces)
            elif isinstance(event, Done):
                ended.add(event.stream)
        assert ended == set(range(2, 52))
        assert all(texts[number] == text for number in ended)
        assert 0 < len(texts[1]) < 200
        await peer.send(Credit(1, 1 << 20))
        rest, _ = await peer.until(Done)
        assert texts[1] + "".join(rest) == text


async def test_a_client_that_reads_nothing_is_dropped_and_bounded(autojump_clock: object) -> None:
    text = " ".join("x" * 50 for _ in range(500))
    async with serving(FakeUpstream(slots=64), write_timeout=30.0) as (server, listener):
        stalled, other = listener.connect_unread(), listener.connect()
        await stalled.greet()
        await other.greet()
        await stalled.send(*(ask(text, stream=number) for number in range(1, 61)))
        start = trio.current_time()
        await other.send(ask(text))
        pieces, _ = await other.until(Done)
        assert "".join(pieces) == text
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == start
        (session,) = (s for s in server.listener.sessions if s.busy)
        # 60 answers of 25 kB are ready; no more than the mark and one frame wait for the socket.
        assert 0 < len(session._buffer) < HIGH_WATER + 60_000
        await trio.sleep(31)
        assert not any(s.busy for s in server.listener.sessions)
        assert len(server.listener.sessions) == 1


async def test_one_crash_touches_no_other_session(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Session._generate

    def crash(self: Session, event: Any) -> None:
        if event.prompt == "crash":
            raise ZeroDivisionError
        real(self, event)

    monkeypatch.setattr(Session, "_generate", crash)
    async with serving(FakeUpstream()) as (_, listener):
        victim, other = listener.connect(), listener.connect()
        await victim.greet()
        await other.greet()
        await victim.send(ask("crash"))
        assert await victim.stream.receive_some(1) == b""
        await other.send(ask("fine"))
        await other.until(Done)


async def test_an_upstreams_failure_reaches_its_stream_only(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        upstream.failure = UpstreamError("it broke", retry=True)
        upstream.fail_after = 2
        await peer.send(ask("a b c d"))
        pieces, error = await peer.until(Error)
        assert "".join(pieces) == "a b"
        assert (error.code, error.message, error.retry) == ("upstream_error", "it broke", True)
        upstream.failure = None
        await peer.send(ask(stream=2))
        await peer.until(Done, 2)


async def test_one_byte_at_a_time(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = listener.connect()
        data = peer.connection.send(Hello([1], 1 << 20, 8))
        for i in range(len(data)):
            await peer.stream.send_all(data[i : i + 1])
            await trio.testing.wait_all_tasks_blocked()
        await peer.next()
        data = peer.connection.send(ask())
        for i in range(len(data)):
            await peer.stream.send_all(data[i : i + 1])
            await trio.testing.wait_all_tasks_blocked()
        pieces, _ = await peer.until(Done)
        assert "".join(pieces) == "one two three"


async def test_a_client_that_gives_the_connection_up_ends_its_work(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.paused = True
    async with serving(upstream, disconnect_seconds=0) as (_, listener):
        peer = listener.connect()
        await peer.greet()
        await peer.send(ask())
        assert isinstance(await peer.next(), Accepted)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(Error(0, ErrorCode.MALFORMED_FRAME, "that was no frame"))
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.active == 0
