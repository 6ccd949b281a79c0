"""The client without async: against a scripted server on loopback, in its own thread."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
import trio

import llcuda_protocol as wire
from llcuda_net import sync
from llcuda_net.client.events import Piece, Queued, Spliced
from llcuda_net.client.results import Entry
from llcuda_net.errors import ConfigError, ConnectError, RequestError
from tests.support.client.scripted_server import Scripted, listening
from tests.support.processes import PATIENCE


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def address(server: Scripted) -> Iterator[str]:
    with listening(server.serve) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while _client_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _client_threads()


def _client_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "llcuda-client"]


def test_everything_a_client_does(server: Scripted, address: str) -> None:
    server.queue = (2, 1)
    with sync.connect(address) as client:
        with client.generate("one two", n_predict=4, tokens=True) as stream:
            assert stream.id == "0190-test"
            assert stream.position == 2
            with pytest.raises(RuntimeError, match="read it to its end"):
                _ = stream.result
            events = list(stream.events())
            assert events == [Queued(1), Piece(0, "one", 0), Piece(1, " two", 1)]
        assert list(client.generate("a b")) == ["a", " b"]
        assert stream.text == stream.result.text == "one two"
        assert client.complete("x y z").text == "x y z"
        assert client.embed(["a", "b"]) == [[1.0, 1.0], [1.0, 1.0]]
        assert client.status() == {"connections": 1}
        assert client.ping() > 0
        with client.generate("endless") as stream:
            assert next(iter(stream)) == "begun "
            stream.cancel()
            assert list(stream) == []
            assert stream.result.reason == "cancelled"
    assert server.requests()[0].params == {"n_predict": 4}


def test_what_a_server_of_several_upstreams_reports(server: Scripted, address: str) -> None:
    server.features = ["attach", "pool", "splice", "list"]
    server.queue, server.wait, server.reason = (3, 2), 4.0, "all 4 slots are in use"
    server.report = {"models": [{"name": "demo"}]}
    server.entries = [{"id": "g", "state": "running", "created": 1.0}] * 2
    with sync.connect(address) as client:
        with client.generate(raw="moved on", model="demo", priority="low", splices=True) as stream:
            assert (stream.position, stream.wait, stream.reason) == (3, *waits(server))
            assert list(stream.events()) == [
                Queued(2, *waits(server)),
                Piece(0, "moved"),
                Queued(2, 4.0, "no upstream answers"),
                Queued(1, 4.0, "no upstream answers"),
                Queued(0),
                Spliced(1, "upstream a failed"),
                Piece(1, " on"),
            ]
        assert client.models() == [{"name": "demo"}]
        assert client.list(1) == [Entry("g", "running", 1.0)]
        assert len(client.list(state="running", before="h")) == 2
        assert client.embed(["a"], model="small") == [[1.0, 1.0]]
    (request,) = server.requests()
    assert (request.model, request.priority) == ("demo", "low")
    lists = [event for event in server.seen if isinstance(event, wire.ListGenerations)]
    assert [(e.limit, e.state, e.before) for e in lists] == [(1, None, None), (20, "running", "h")]
    assert [e.model for e in server.seen if isinstance(e, wire.Embed)] == ["small"]


def waits(server: Scripted) -> tuple[float | None, str | None]:
    return server.wait, server.reason


def test_errors_are_those_of_the_async_client(address: str) -> None:
    with sync.connect(address) as client:
        with pytest.raises(RequestError, match="full") as caught:
            client.generate("refuse")
        assert (caught.value.code, caught.value.retry_after) == ("overloaded", 2.0)
        with pytest.raises(TypeError):
            client.generate("a", raw="b")
        with pytest.raises(RequestError, match="it broke"):
            list(client.generate("fail"))
        with pytest.raises(ConnectError, match="before the answer"):
            list(client.generate("drop"))
        with pytest.raises(ConnectError, match="closed the connection"):
            client.ping()
    with pytest.raises(ConnectError, match="the client is closed"):
        client.ping()
    with pytest.raises(ConfigError):
        sync.connect("::1")
    with pytest.raises(ConnectError, match="refused"):
        sync.connect("127.0.0.1:1")


def test_a_stream_that_is_dropped_is_cancelled(server: Scripted, address: str) -> None:
    with sync.connect(address) as client:
        for _ in client.generate("flood"):
            break
        gc.collect()
        assert server.cancelled.wait(PATIENCE)
        assert client.complete("still here").text == "still here"


def test_a_client_that_is_dropped_is_closed(server: Scripted, address: str) -> None:
    client = sync.connect(address)
    stream = client.generate("endless")
    del client
    gc.collect()
    assert next(iter(stream)) == "begun "  # a stream keeps its client
    del stream
    gc.collect()
    assert server.cancelled.wait(PATIENCE)


def test_a_client_that_is_dropped_in_its_own_thread_is_closed(
    server: Scripted, address: str
) -> None:
    """Where the garbage collector happens to run, that is: the thread cannot wait for itself."""
    client = sync.connect(address)
    post = client._background.post
    box: list[object] = [client, client.generate("endless")]
    del client
    post(box.clear)
    assert server.cancelled.wait(PATIENCE)


def test_a_call_inside_the_background_thread_is_an_error_and_no_deadlock(address: str) -> None:
    raised: Future[str] = Future()
    with sync.connect(address) as client:

        def call() -> None:
            try:
                client.ping()
            except RuntimeError as error:
                raised.set_result(str(error))

        client._background.post(call)
        assert "event loop thread" in raised.result(PATIENCE)
        assert "sync.Client over <Client over" in repr(client)
        assert repr(client._background) == "<BackgroundLoop llcuda-client running>"
    assert repr(client._background) == "<BackgroundLoop llcuda-client stopped>"


def test_a_client_that_is_open_when_python_exits_is_closed(server: Scripted, address: str) -> None:
    code = (
        f"import llcuda_net; client = llcuda_net.sync.connect({address!r})\n"
        "print(next(iter(client.generate('endless'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun \n", "")
    assert server.cancelled.wait(PATIENCE)


def test_an_interrupt_while_it_connects_leaves_no_thread() -> None:
    main = threading.get_ident()
    seen = threading.Event()

    async def silent(stream: trio.abc.Stream) -> None:
        seen.set()
        await trio.sleep_forever()

    def interrupt() -> None:
        seen.wait(PATIENCE)
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    with listening(silent) as port:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            sync.connect(f"127.0.0.1:{port}", timeout=PATIENCE)
        thread.join(PATIENCE)


def test_closing_ends_the_calls_of_other_threads(address: str) -> None:
    client = sync.connect(address)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(client.generate("endless"))
        except ConnectError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not client.status()["connections"]:
        pass
    client.close()
    client.close()
    thread.join(PATIENCE)
    assert [str(error) for error in caught] == ["the client is closed"]


def test_several_threads_share_a_client(address: str) -> None:
    found: dict[int, str] = {}
    with sync.connect(address) as client:

        def ask(i: int) -> None:
            found[i] = "".join(client.generate(f"answer {i}"))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert found == {i: f"answer {i}" for i in range(16)}


def test_inside_a_running_event_loop_as_in_a_notebook(address: str) -> None:
    async def cell() -> str:
        with sync.connect(address) as client:
            return client.complete("from asyncio").text

    assert asyncio.run(cell()) == "from asyncio"


@pytest.mark.parametrize("how", ["complete", "generate"])
def test_an_interrupt_cancels_on_the_server(server: Scripted, address: str, how: str) -> None:
    """Ctrl-C in the main thread: the call ends, the generation too, the client lives on."""
    main = threading.get_ident()

    def interrupt() -> None:
        deadline = time.monotonic() + PATIENCE
        while not server.requests() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    with sync.connect(address) as client:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            if how == "complete":
                client.complete("endless")
            else:
                with client.generate("endless") as stream:
                    list(stream)
        thread.join(PATIENCE)
        assert server.cancelled.wait(PATIENCE)
        assert client.complete("goes on").text == "goes on"
    assert [e for e in server.seen if isinstance(e, wire.Cancel)] == [wire.Cancel(1)]


def test_channels_tools_and_deleting(server: Scripted, address: str) -> None:
    server.features = ["channels", "delete"]
    server.answers = [
        [
            (("reasoning", 0, "", ""), "hm"),
            (("text", 0, "", ""), "I look."),
            (("tool_call", 0, "c0", "weather"), ""),
            (("tool_call", 0, "c0", "weather"), "{}"),
        ]
    ] * 2
    with sync.connect(address) as client:
        stream = client.generate("a", tools=[{"name": "weather"}], parallel_tool_calls=False)
        assert list(stream) == ["I look."]
        assert (stream.text, stream.reasoning, stream.received) == ("I look.", "hm", 4)
        assert stream.tool_calls == [sync.ToolCall("c0", "weather", "{}")]
        assert stream.result.message["tool_calls"][0]["function"]["name"] == "weather"
        stream = client.generate("a")
        kinds = [event.channel.kind for event in stream.events() if isinstance(event, Piece)]
        assert kinds == ["reasoning", "text", "tool_call", "tool_call"]
        client.delete(stream.id)
    assert server.deleted == [stream.id]
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert server.requests()[0].chat == {"tools": tools, "parallel_tool_calls": False}
