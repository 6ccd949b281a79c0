"""A client that somebody wrote from SPEC.md talks to a real server: the core profile is enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.core_client import ACCEPTED, DONE, TOKENS, CoreClient, RefusedError
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.steady import ENDLESS, endless_upstream


@pytest.fixture
def client(demo_server: RunningServer) -> Iterator[CoreClient]:
    with CoreClient(demo_server.port, PATIENCE) as client:
        yield client


def test_it_generates_with_small_credit(client: CoreClient) -> None:
    """Some 64 bytes at a time: every piece comes, once and in order."""
    request = {"prompt": "Hello", "params": {"n_predict": 40, "temperature": 0, "seed": 1}}
    text, done = client.complete(**request)
    assert done["reason"] in ("stop", "length")
    assert done["usage"]["completion_tokens"] <= 40
    assert "cut" not in done
    chat = {"messages": [{"role": "user", "content": "Hi"}], "params": {"n_predict": 5}}
    assert client.complete(**chat)[1]["usage"]["completion_tokens"] <= 5
    # The same in the numbers of another language.
    floats = {"n_predict": 40.0, "temperature": 0.0, "seed": 1.0}
    assert client.complete(prompt="Hello", params=floats)[0] == text


def test_it_cancels() -> None:
    frames = []
    with (
        endless_upstream() as upstream,
        running_server("--upstream", upstream) as server,
        CoreClient(server.port, PATIENCE) as client,
    ):
        stream = client.generate(prompt="Hello", params={"n_predict": ENDLESS})
        for frame in client.frames(stream):
            frames.append(frame)
            if frame[0] == TOKENS and not any(other[0] == TOKENS for other in frames[:-1]):
                client.cancel(stream)
                client.cancel(stream, detach=True)  # which says nothing: the first counts
    assert (frames[0][0], frames[-1][0]) == (ACCEPTED, DONE)
    assert frames[-1][2]["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ({"key": "k" * 257}, "invalid_request", "generate.key is 257 characters long"),
        ({"promt": "Hello"}, "invalid_request", "unknown key 'promt' in generate: did you mean"),
        ({"params": {"temprature": 1}}, "unknown_parameter", "temperature"),
        ({"params": {"n_predict": -5}}, "invalid_request", "n_predict must be"),
        ({"timeout": "long"}, "invalid_request", "generate.timeout must be a number"),
        ({"deadline": -1}, "invalid_request", "generate.deadline must be 0 to"),
    ],
)
def test_an_error_in_a_value_is_answered_on_its_stream(
    client: CoreClient, wrong: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        client.complete(**{"prompt": "Hello", **wrong})
    assert (caught.value.stream, caught.value.code) == (1, code)
    assert message in str(caught.value)
    assert client.ping(b"still here") == b"still here"
    assert client.complete(prompt="Hello", params={"n_predict": 3})[1]["usage"]


def test_a_deadline_of_nothing_on_an_idle_server(client: CoreClient) -> None:
    done: dict[str, Any] = {}

    def served() -> bool:
        try:
            done.update(client.complete(prompt="Hello", params={"n_predict": 1}, deadline=0)[1])
        except RefusedError as error:
            if error.code != "overloaded":
                raise
        return bool(done)

    wait_until(served, "the slots of the tests before are on their way back")
    assert done["usage"]["completion_tokens"] == 1


def test_what_is_no_frame_ends_the_connection(client: CoreClient) -> None:
    client.send(99, 1, {})
    with pytest.raises(RefusedError) as caught:
        list(client.frames(1))
    assert (caught.value.stream, caught.value.code) == (0, "unknown_kind")
    with pytest.raises(ConnectionError, match="closed"):
        client.read()
