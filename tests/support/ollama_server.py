"""A server that answers as Ollama does, and is not llcuda: its own routes, and its ways.

Run as a process; its first line is "listening on HOST:PORT", and it ends when stdin is closed.

Its ways: fields that it does not know (ignore_eos) are passed over; an answer ends where the model
ends it; a model is loaded by the first request for it, and listed by /api/ps with the context that
it has then; every chunk of a chat has a role; reasoning comes as `reasoning`; usage comes where it
is asked for, in a last chunk without choices.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.processes import read_line

MODEL = "llama3.2:latest"
VERSION = "0.12.6"
CONTEXT = 4096
#: What every answer is, in pieces of a token each, whatever is asked: the first of them thought.
THOUGHTS, WORDS = ["Hm", "."], ["The", " sky", " is", " blue", "."]
#: Tokens that it counts: one more, which ends the answer and has no text.
TOKENS = len(THOUGHTS) + len(WORDS) + 1
#: Seconds to load a model, and between two tokens.
LOADING, STEP = 0.3, 0.002


class Ollama(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    loaded = threading.Event()

    def do_GET(self) -> None:
        """What it says of itself."""
        running = [{"name": MODEL, "model": MODEL, "context_length": CONTEXT}]
        answers: dict[str, Any] = {
            "/api/version": {"version": VERSION},
            "/api/tags": {"models": [{"name": MODEL, "model": MODEL}]},
            "/api/ps": {"models": running if self.loaded.is_set() else []},
            "/v1/models": {
                "object": "list",
                "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "library"}],
            },
        }
        if self.path == "/":
            self._send(200, b"Ollama is running", "text/plain; charset=utf-8")
        elif self.path in answers:
            self._send(200, json.dumps(answers[self.path]).encode())
        else:
            self._send(404, b"404 page not found", "text/plain")

    def do_POST(self) -> None:
        """A chat."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, b"404 page not found", "text/plain")
        elif body["model"] not in (MODEL, MODEL.removesuffix(":latest")):
            error = {"message": f'model "{body["model"]}" not found', "type": "not_found_error"}
            self._send(404, json.dumps({"error": {**error, "param": None, "code": None}}).encode())
        else:
            if not self.loaded.is_set():
                time.sleep(LOADING)
                self.loaded.set()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in _events(body):
                data = b"data: %b\n\n" % event
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (of the base class)
        """Nothing."""


def _events(body: dict[str, Any]) -> Iterator[bytes]:
    pieces = [("reasoning", text) for text in THOUGHTS] + [("content", text) for text in WORDS]
    most = body.get("max_tokens") or TOKENS
    for kind, text in pieces[:most]:
        time.sleep(STEP)
        delta = {"role": "assistant", "content": "", kind: text}
        yield _chunk(body, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    reason = "stop" if most >= TOKENS else "length"
    delta = {"role": "assistant", "content": ""}
    yield _chunk(body, choices=[{"index": 0, "delta": delta, "finish_reason": reason}])
    if (body.get("stream_options") or {}).get("include_usage"):
        tokens = min(most, TOKENS)
        usage = {"prompt_tokens": 26, "completion_tokens": tokens, "total_tokens": 26 + tokens}
        yield _chunk(body, choices=[], usage=usage)
    yield b"[DONE]"


def _chunk(body: dict[str, Any], **more: Any) -> bytes:
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1}
    return json.dumps(
        {**head, "model": body["model"], "system_fingerprint": "fp_ollama", **more}
    ).encode()


@contextmanager
def running() -> Iterator[str]:
    """A process of it; gives HOST:PORT."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.ollama_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        try:
            yield read_line(process).split()[-1]
        finally:
            process.kill()


def main() -> None:
    """Serve until stdin is closed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"listening on 127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
