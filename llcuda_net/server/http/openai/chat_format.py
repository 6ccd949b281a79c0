"""The shape of the answer to a chat; see delivery/format.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.format import Commented
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import Shape, whole
from llcuda_net.server.http.openai.chunks import ChatChunks, error_event, usage_chunk


class ChatFormat(Commented, Shape, frozen=True, omit_defaults=True):
    """How the answer to a chat is written."""

    kind: ClassVar[str] = "chat"
    eager: ClassVar[bool] = False
    tail: ClassVar[bytes] = b"data: [DONE]\n\n"

    def writer(
        self, generation: Generation, index: int, first: Generation, after: int | None
    ) -> ChatChunks:
        """See Format."""
        return ChatChunks(generation, self, index, first)

    def total(self, generations: Sequence[Generation]) -> bytes | None:
        """What was used, where that is wanted."""
        return usage_chunk(generations, self) if self.usage else None

    def error(self, error: HttpError) -> bytes:
        """See Format."""
        return error_event(error)

    def whole(self, generations: Sequence[Generation]) -> bytes:
        """See Format."""
        return whole(generations, self)
