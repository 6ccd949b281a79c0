"""What clients send is in no line of the log that is written by default, nor is it in metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from llcuda_net.config.token_file import Users
from llcuda_net.errors import UpstreamError
from llcuda_net.server.http.monitor import Monitor
from llcuda_net.util import logs as logs_module
from llcuda_protocol import Attach, Done, Error, ErrorCode, Hello
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    Peer,
    ask,
    ready,
)

TOKEN = "token-that-is-secret"
USER = "name-that-is-secret"
KEY = "key-that-is-secret"
PROMPT = "prompt-that-is-secret"
#: In each of them, so that one search finds whatever came through.
SECRET = "that-is-secret"


async def conflict(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """A key that is another request's: of one that runs."""
    upstream.paused = True
    await peer.send(ask(PROMPT, stream=1, key=KEY), ask("another", stream=3, key=KEY))
    _, error = await peer.until(Error, 3)
    return error


async def stored_conflict(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """A key that is another request's: of one that is in the store."""
    await peer.send(ask(PROMPT, stream=1, key=KEY))
    await peer.until(Done)
    for generation in tuple(listener.server.registry._lingering):
        listener.server.registry._drop(generation)
    await peer.send(ask("another", stream=3, key=KEY))
    _, error = await peer.until(Error, 3)
    return error


async def quoting_upstream(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """An upstream whose error quotes what it was asked."""
    upstream.failure = UpstreamError(f"the upstream answered 400: cannot parse {PROMPT}")
    await peer.send(ask(PROMPT))
    _, error = await peer.until(Error)
    return error


async def wrong_parameters(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """Requests that are refused before they run."""
    await peer.send(
        ask(PROMPT, stream=1, params={SECRET: 1}),
        ask(PROMPT, stream=3, params={"stop": SECRET, "temperature": SECRET}),
        ask(PROMPT, stream=5, model=f"model-{SECRET}"),
        Attach(7, f"id-{SECRET}", CREDIT),
    )
    _, error = await peer.until(Error, 7)
    return error


async def client_error(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """A client that gives up, in words of its own."""
    await peer.send(Error(0, f"code-{SECRET}", f"the answer to {PROMPT} is wrong"))
    await peer.until_closed()
    return Error(0, "", "")


async def wrong_token(listener: MemoryListener, upstream: FakeUpstream, peer: Peer) -> Any:
    """A client that may not come in."""
    other = listener.connect()
    await other.send(Hello([1], 1 << 20, 256, f"wrong-{SECRET}"))
    return await other.next()


Act = Callable[[MemoryListener, FakeUpstream, Peer], Any]
ACTS: list[tuple[Act, str]] = [
    (conflict, ErrorCode.KEY_CONFLICT),
    (stored_conflict, ErrorCode.KEY_CONFLICT),
    (quoting_upstream, ErrorCode.UPSTREAM_ERROR),
    (wrong_parameters, ErrorCode.UNKNOWN_GENERATION),
    (client_error, ""),
    (wrong_token, ErrorCode.UNAUTHORIZED),
]


@pytest.mark.parametrize(("act", "code"), ACTS, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_a_client_sends_is_in_no_log(act: Act, code: str, tmp_path: Path) -> None:
    users = Users.parse(f"{TOKEN} name={USER}\n")
    monitor = Monitor()
    upstream = FakeUpstream()
    with structlog.testing.capture_logs() as logs:
        async with keeping(tmp_path, upstream, users=users) as (_, listener):
            monitor.watch(listener.server)
            error = await act(listener, upstream, await ready(listener, TOKEN))
            assert error.code == code
            for path in ("/metrics", "/readyz", "/healthz"):
                answer = await monitor.respond(path, "")
                assert answer is not None
                assert SECRET.encode() not in answer.body
    written = [entry for entry in logs if entry["log_level"] != "debug"]
    # A user is the operator's own word.
    text = json.dumps(written, default=repr).replace(USER, "")
    assert SECRET not in text


def test_a_reason_in_the_log_is_our_own_words() -> None:
    assert logs_module.reason_of(ErrorCode.OVERLOADED, "the queue is full") == "the queue is full"
    assert logs_module.reason_of(ErrorCode.KEY_CONFLICT, SECRET) == "key_conflict"
    assert logs_module.reason_of(SECRET, SECRET) == "other"
    assert logs_module.code_of(ErrorCode.TIMEOUT) == "timeout"
