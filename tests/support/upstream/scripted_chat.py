"""A llama-server whose chats are scripted, for answers that no small model gives when asked.

It runs in a thread of this process and speaks what llama-server does: /health, /props, /slots,
/apply-template, /tokenize, /completion (one token), and /v1/chat/completions, whose chunks have the
form of llama-server's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.synthetic.pages import apply_template, props

#: A template that has tools, and reasoning.
TEMPLATE = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"


def text(content: str) -> dict[str, Any]:
    """A part of an answer: text."""
    return {"content": content}


def thought(content: str) -> dict[str, Any]:
    """A part of an answer: reasoning."""
    return {"reasoning_content": content}


def call(index: int, name: str, id_: str) -> dict[str, Any]:
    """A part of an answer: a tool call begins."""
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]}


def arguments(index: int, content: str) -> dict[str, Any]:
    """A part of an answer: more arguments of a tool call."""
    return {"tool_calls": [{"index": index, "function": {"arguments": content}}]}


@dataclass
class ScriptedChat:
    """What it answers, and what it was asked.

    Attributes:
        answers: the parts of each answer in turn, and why it ends; the last one is repeated.
        asked: the bodies of the chats.
        modalities: what its model can do beside text.
        template: of its model; with one that thinks, every chat comes as a chat.
        gate: answers wait for it behind their first part; open at first.
    """

    answers: list[tuple[Sequence[dict[str, Any]], str]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    modalities: dict[str, bool] = field(
        default_factory=lambda: {"vision": True, "video": False, "audio": True}
    )
    template: str = TEMPLATE
    gate: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    def chunks(self) -> Iterator[bytes]:
        """The events of the next answer."""
        parts, reason = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        head = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "model": "scripted"}

        def event(delta: dict[str, Any], count: int, finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            timings = {"prompt_n": 7, "cache_n": 0, "predicted_n": count}
            body = {**head, "choices": [choice], "timings": timings}
            return b"data: " + json.dumps(body).encode() + b"\n\n"

        yield event({"role": "assistant", "content": None}, 0)
        for count, part in enumerate(parts, 1):
            yield event(part, count)
            self.gate.wait()
        yield event({}, len(parts), reason)
        usage = {"prompt_tokens": 7, "completion_tokens": len(parts), "total_tokens": 0}
        body = {**head, "choices": [], "usage": usage}
        yield b"data: " + json.dumps(body).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


_ONE_TOKEN = {
    "content": "x",
    "tokens": [1],
    "stop": True,
    "stop_type": "limit",
    "tokens_predicted": 1,
    "tokens_evaluated": 1,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: ScriptedChat

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer what a client asks of the server itself."""
        if self.path == "/health":
            self._reply({"status": "ok"})
        elif self.path == "/props":
            found = props(2, 4096, "scripted")
            found.update(chat_template=self.script.template, modalities=self.script.modalities)
            self._reply(found)
        elif self.path == "/slots":
            self._reply([{"id": i, "is_processing": False} for i in range(2)])
        else:
            self._reply({"error": {"code": 404, "message": "no", "type": "not_found_error"}}, 404)

    def do_POST(self) -> None:
        """Answer what a request needs."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length))
        if self.path == "/v1/chat/completions":
            self.script.asked.append(body)
            self._stream(self.script.chunks())
        elif self.path == "/completion":  # as a server asks that looks whether it works
            self._stream([b"data: " + json.dumps(_ONE_TOKEN).encode() + b"\n\n"])
        elif self.path == "/apply-template":
            self._reply({"prompt": apply_template(body["messages"])})
        elif self.path == "/tokenize":
            self._reply({"tokens": list(body["content"].encode())})
        else:
            self._reply({"error": {"code": 404, "message": "no", "type": "not_found_error"}}, 404)

    def _stream(self, chunks: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
        self.close_connection = True

    def _reply(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def scripted_chat() -> Iterator[ScriptedChat]:
    """One that listens on loopback until the block ends."""
    script = ScriptedChat()
    handler = type("Handler", (_Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield script
    finally:
        script.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
