"""Connections to a real llama-server and to llcuda-server in front of it: answers are counted.

What a real model says is not known beforehand, so other than in tools/load nothing is checked but
that each answer comes to its end.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from llcuda_protocol import Generate
from tools.load.streams import CREDIT, HttpConnection, LlcudaConnection, Request
from tools.slots.workload import Asked


def params(tokens: int) -> dict[str, Any]:
    """Sampling parameters: the likeliest tokens, so many of them."""
    return {"n_predict": tokens, "temperature": 0.0, "ignore_eos": True}


class Answer(Request):
    """One request and its answer, of which pieces and text are kept.

    Attributes:
        said: tokens of the answer, by the server's count; 0 before its end.
    """

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked.prompt, asked.tokens)
        self.text: list[str] = []
        self.said = 0

    def end(self, said: int, reason: str = "") -> None:
        """See Request; a token that is no whole character has no piece."""
        self.ended, self.reason, self.said = True, reason, said
        if said != self.wanted:
            self.failed(f"an answer of {said} tokens, where {self.wanted} were asked for")


class _Event(msgspec.Struct):
    content: str = ""
    stop: bool = False
    tokens_predicted: int = 0


_decode = msgspec.json.Decoder(_Event).decode


class DirectConnection(HttpConnection):
    """To the llama-server itself: one request at a time."""

    def begin(self, request: Request) -> None:
        """Send a request."""
        asked = {"prompt": request.prompt, "stream": True, **params(request.wanted)}
        self._post(b"/completion", asked, request)

    def _came(self, request: Request, events: list[bytes], now: int) -> None:
        assert isinstance(request, Answer)
        count = 0
        for data in events:
            if not data.startswith(b"data: {"):
                continue
            event = _decode(data[6:])
            if event.stop:
                self._said = event.tokens_predicted
            if event.content:
                request.text.append(event.content)
                count += 1
        if count:
            self.recorder.tokens += count
            request.came(count, now)


class ServerConnection(LlcudaConnection):
    """To llcuda-server: any number of requests at a time."""

    def begin(self, request: Request) -> None:
        """Send a request."""
        self._last += 1
        self._requests[self._last] = request
        frame = Generate(
            self._last,
            CREDIT,
            prompt=request.prompt,
            params=params(request.wanted),
            on_disconnect=0.0,
        )
        request.started_ns = time.monotonic_ns()
        self.sock.sendall(self._protocol.send(frame))

    def _take(self, request: Request, pieces: list[str], now: int) -> None:
        assert isinstance(request, Answer)
        request.text += pieces
        self.recorder.tokens += len(pieces)
        request.came(len(pieces), now)
