"""The formats of all APIs, by the kind that is kept with a request."""

from __future__ import annotations

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.anthropic.message_format import MessageFormat
from llcuda_net.server.http.completions.format import CompletionFormat
from llcuda_net.server.http.delivery.format import Format, model_of
from llcuda_net.server.http.openai.chat_format import ChatFormat
from llcuda_net.server.http.responses.response_format import ResponseFormat

_APIS: tuple[type[Format], ...] = (ChatFormat, CompletionFormat, MessageFormat, ResponseFormat)
_FORMATS = {one.kind: one for one in _APIS}


def format_of(generation: Generation) -> Format:
    """How the answer is written that a generation was asked for; of another protocol, as a chat."""
    api = generation.api or {}
    found = _FORMATS.get(api.get("kind", ""))
    if found is None:
        return ChatFormat(model_of(generation), stream=True, usage=True)
    return msgspec.convert(api["shape"], found)
