"""A connection of the load generator by OpenAI's API, as llcuda-server speaks it."""

from __future__ import annotations

import msgspec

from tools.load.streams import HttpConnection, Request
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import following, tokenise

_CONTENT = b'"content":"'


class ChatConnection(HttpConnection):
    """To llcuda-server by HTTP: one chat at a time."""

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
            elif b'"choices":[]' in event:
                data = event[event.index(b"data: ") + 6 :]
                self._said = msgspec.json.decode(data)["usage"]["completion_tokens"]
            elif b'"error"' in event:
                request.failed(event.decode("utf-8", "replace"))
        if text:
            self._take(request, text, now)
