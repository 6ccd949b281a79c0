"""The shape of the answer to a message; see delivery/format.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.anthropic.answers import blocks_of, stop_of, used
from llcuda_net.server.http.anthropic.events import MessageEvents, error_event
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import ours

#: What an empty message has used, as far as it is known then: the prompt's tokens come at the end.
_NOTHING_USED = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


class MessageFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the answer to a message is written.

    Attributes:
        model: the name of the model that answers.
        max_tokens: the most that its client wants.
        stream: the answer is streamed.
    """

    kind: ClassVar[str] = "message"
    eager: ClassVar[bool] = False
    tail: ClassVar[bytes] = b""

    model: str
    max_tokens: int = 0
    stream: bool = False

    def writer(
        self, generation: Generation, index: int, first: Generation, after: int | None
    ) -> MessageEvents:
        """See Format."""
        start = self._message(generation, [], {"stop_reason": None, "stop_sequence": None})
        return MessageEvents(generation, {**start, "usage": _NOTHING_USED}, self.max_tokens)

    def total(self, generations: Sequence[Generation]) -> bytes | None:
        """What was used is said before the end of the message."""
        return None

    def error(self, error: HttpError) -> bytes:
        """See Format."""
        return error_event(error)

    def comment(self, text: str) -> bytes:
        """A ping, with a comment: clients of this API know pings, and people read comments."""
        return b': %b\nevent: ping\ndata: {"type":"ping"}\n\n' % text.encode()

    def whole(self, generations: Sequence[Generation]) -> bytes:
        """See Format."""
        (generation,) = generations
        stop = stop_of(generation, self.max_tokens)
        message = self._message(generation, blocks_of(generation), stop)
        message |= {"usage": used(generation), "llcuda": ours(generation)}
        return msgspec.json.encode(message)

    def _message(
        self, generation: Generation, content: list[Any], stop: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{generation.id}",
            "type": "message",
            "role": "assistant",
            # Where the request named none and none had loaded yet, the shape knows no name.
            "model": self.model or str(generation.model.get("name") or ""),
            "content": content,
            **stop,
        }
