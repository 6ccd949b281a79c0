"""Connections of the load generator by OpenAI's APIs, as llcuda-server speaks them."""

from __future__ import annotations

import http.client

import msgspec

from tools.load.streams import PATIENCE, HttpConnection, LoadError, Recorder, Request
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import following, tokenise

_CONTENT = b'"content":"'
_DELTA = b'"delta":"'
#: With which a response ends that is whole, or has as many tokens as it may have.
_ENDS = (b"event: response.completed", b"event: response.incomplete")

_USAGE = b'"usage":{'


class ChatConnection(HttpConnection):
    """To llcuda-server by HTTP: one chat at a time.

    Attributes:
        greeting: a path that is answered at once.
    """

    greeting = b"/healthz"

    def __init__(self, address: tuple[str, int], recorder: Recorder, stamped: bool) -> None:
        super().__init__(address, recorder, stamped)
        # A connection that says nothing is soon closed; one that was answered may wait.
        self.sock.settimeout(PATIENCE)
        self.sock.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (self.greeting, self._host))
        answer = http.client.HTTPResponse(self.sock, method="GET")
        answer.begin()
        answer.read()
        if answer.status != 200:
            raise LoadError(f"{self.greeting.decode()} is answered with {answer.status}")
        self.sock.setblocking(False)

    def begin(self, request: Request) -> None:
        """Send a request."""
        messages = [{"role": "user", "content": request.prompt}]
        request.expected = following(tokenise(apply_template(messages)))
        asked = {
            "model": "any",
            "messages": messages,
            "max_tokens": request.wanted,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self._post(b"/v1/chat/completions", asked, request)

    def _came(self, request: Request, events: list[bytes], now: int) -> None:
        text = []
        for event in events:
            found = event.find(_CONTENT)
            if found >= 0:
                found += len(_CONTENT)
                text.append(event[found : found + self.width].decode("ascii"))
            elif _USAGE in event:
                data = event[event.index(b"data: ") + 6 :]
                self._said = msgspec.json.decode(data)["usage"]["completion_tokens"]
            elif b'"error"' in event:
                request.failed(event.decode("utf-8", "replace"))
        if text:
            self._take(request, text, now)


class ResponsesConnection(ChatConnection):
    """The same by /v1/responses."""

    def begin(self, request: Request) -> None:
        """Send a request."""
        messages = [{"role": "user", "content": request.prompt}]
        request.expected = following(tokenise(apply_template(messages)))
        asked = {
            "model": "any",
            "input": request.prompt,
            "max_output_tokens": request.wanted,
            "stream": True,
        }
        # It would go on without its reader for a while, since that may come back.
        self._post(b"/v1/responses", asked, request, b"x-llcuda-on-disconnect: cancel\r\n")

    def _came(self, request: Request, events: list[bytes], now: int) -> None:
        text = []
        for event in events:
            found = event.find(_DELTA)
            if found >= 0:
                found += len(_DELTA)
                text.append(event[found : found + self.width].decode("ascii"))
            elif event.startswith(_ENDS):
                response = msgspec.json.decode(event[event.index(b"data: ") + 6 :])["response"]
                self._said = response["usage"]["output_tokens"]
            elif b'"error":{' in event:
                request.failed(event.decode("utf-8", "replace"))
        if text:
            self._take(request, text, now)


class PeerConnection(ChatConnection):
    """The same to LiteLLM's proxy."""

    greeting = b"/health/liveliness"
