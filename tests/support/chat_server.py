"""An HTTP server with an OpenAI-compatible chat API, that is neither llcuda nor llama-server.

With `props` it is as much of a llama-server as a chat needs: an upstream with a script. What it is
asked beside chats it answers with a word.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from tools.synthetic.pages import apply_template


def chunk(text: str | None = None, **more: Any) -> bytes:
    """One event of a stream."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    return b"data: " + json.dumps({"id": "c1", "choices": choices, **more}).encode() + b"\n\n"


def ending(reason: str = "length") -> bytes:
    """The event that says why the answer ended."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"


USAGE = chunk(usage={"prompt_tokens": 7, "completion_tokens": 3})
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Refusal:
    """What answers in place of events."""

    status: int
    body: bytes


#: Events of an answer, and where it waits.
Script = Sequence[bytes | threading.Event]


@dataclass
class ChatServer:
    """What it answers, and what it was asked.

    Attributes:
        events: of every answer, with `pause` seconds between them.
        script: makes the events of an answer from the body that asks; it goes before `events`. An
            event of threading among them is where the answer waits.
        gate: answers wait for it behind their second event, the first that says something.
        cut: the connection is closed behind the events, and the body has no end.
        props: of /props, as of a llama-server; None: it has none.
        refuse: a status and a body in place of the answer.
        headers: more of the answer's head, each line with its end.
        models: of its list; None: it has no list.
        root, api: what all its paths begin with, and then those of the API.
        says: more that it answers, as JSON, by method and path.
        asked: the bodies of the chats.
    """

    events: list[bytes] = field(default_factory=lambda: [chunk("one"), ending(), DONE])
    script: Callable[[dict[str, Any]], Script | Refusal] | None = None
    gate: threading.Event | None = None
    cut: bool = False
    props: dict[str, Any] | None = None
    pause: float = 0.0
    refuse: tuple[int, bytes] | None = None
    headers: str = ""
    models: list[str] | None = field(default_factory=lambda: ["m1", "m2"])
    key: str = ""
    root: str = ""
    api: str = "/v1"
    says: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve on a free port until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._connection, [listener])
            task_status.started()

    async def _connection(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                head, body = await _request(stream)
                line, _, headers = head.partition("\r\n")
                method, path = line.split()[:2]
                self.paths.append(path)
                line = f"{method} {path.removeprefix(self.root)}"
                if self.key and not self._has_key(headers.lower()):
                    await _answer(stream, 401, b'{"error": {"message": "no key"}}')
                elif not path.startswith(self.root):
                    await _answer(stream, 404, b"<html><title>no such app</title></html>")
                elif line in self.says:
                    await _answer(stream, 200, json.dumps(self.says[line]).encode())
                elif line == f"GET {self.api}/models" and self.models is not None:
                    data = [{"id": name, "owned_by": "tests"} for name in self.models]
                    await _answer(stream, 200, json.dumps({"data": data}).encode())
                elif line.startswith("GET /props") and self.props is not None:
                    await _answer(stream, 200, json.dumps(self.props).encode())
                elif line.startswith("GET /health"):
                    await _answer(stream, 200, b"" if self.props is None else b'{"status": "ok"}')
                elif self.props is not None and (found := self._of_llama(line.split()[1], body)):
                    await _answer(stream, 200, found)
                elif line != f"POST {self.api}/chat/completions":
                    await _answer(stream, 404, b'{"detail": "Not Found"}')
                else:
                    self.asked.append(json.loads(body))
                    await self._chat(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _has_key(self, headers: str) -> bool:
        """Whether the key is there: as a bearer token, or where it is user:password, as such."""
        basic = base64.b64encode(self.key.encode()).decode().lower()
        return any(
            f"authorization: {one}\r\n" in f"{headers}\r\n"
            for one in (f"bearer {self.key}", f"basic {basic}")
        )

    def _of_llama(self, path: str, body: bytes) -> bytes:
        """What a llama-server answers on a path, if it is one of these."""
        if path == "/slots":
            slots = range((self.props or {}).get("total_slots", 2))
            return json.dumps([{"id": i, "is_processing": False} for i in slots]).encode()
        if path == "/apply-template":
            return json.dumps({"prompt": _prompt(json.loads(body))}).encode()
        if path == "/tokenize":
            return json.dumps({"tokens": list(json.loads(body)["content"].encode())}).encode()
        if path == "/completion":  # as a server asks that looks whether it works
            return b"data: " + json.dumps(_ONE_TOKEN).encode() + b"\n\n"
        return b""

    async def _chat(self, stream: trio.SocketStream) -> None:
        script = None if self.script is None else self.script(self.asked[-1])
        if isinstance(script, Refusal):
            await _answer(stream, script.status, script.body)
            return
        if self.refuse is not None:
            await _answer(stream, *self.refuse, self.headers)
            return
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        events: Script = self.events if script is None else script
        for number, event in enumerate(events):
            if isinstance(event, threading.Event):
                await _wait(event)
                continue
            await trio.sleep(self.pause)
            if number > 1 and self.gate is not None:
                await trio.to_thread.run_sync(self.gate.wait)
            await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
        if not self.cut:
            await stream.send_all(b"0\r\n\r\n")


async def _wait(event: threading.Event) -> None:
    """Wait in a thread of its own: how many wait at once is up to the test."""
    wait = trio.to_thread.run_sync
    await wait(event.wait, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


_ONE_TOKEN = {
    "content": "x",
    "tokens": [1],
    "stop": True,
    "stop_type": "limit",
    "tokens_predicted": 1,
    "tokens_evaluated": 1,
}


def _prompt(body: dict[str, Any]) -> str:
    messages = body["messages"]
    if not body.get("continue_final_message"):
        return apply_template(messages)
    begun = messages[-1]
    said: str = begun.get("reasoning_content", "") + begun["content"]
    return apply_template(messages[:-1]) + said


async def _request(stream: trio.SocketStream) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        found = await stream.receive_some(65_536)
        if not found:
            raise trio.ClosedResourceError
        data += found
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode()
    length = 0
    for line in text.lower().split("\r\n"):
        if line.startswith("content-length:"):
            length = int(line.partition(":")[2])
    while len(body) < length:
        body += await stream.receive_some(65_536)
    return text, body


async def _answer(stream: trio.SocketStream, status: int, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    await stream.send_all(f"{head}{headers}\r\n".encode() + body)


@contextmanager
def in_thread(server: ChatServer) -> Iterator[ChatServer]:
    """The server in a thread of its own, for what runs an event loop itself."""
    ready = threading.Event()
    found: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            found.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,), daemon=True)
    thread.start()
    assert ready.wait(300)
    try:
        yield server
    finally:
        token, scope = found[0]
        token.run_sync_soon(scope.cancel)
        thread.join(300)
