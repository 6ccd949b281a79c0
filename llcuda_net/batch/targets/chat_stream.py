"""What a server streams from /v1/chat/completions: HTTP bytes in, parsed pieces out. No I/O.

Servers differ in what they leave out, so everything but the text is optional here: usage, the
reason to stop, the closing `[DONE]`. HTTP and events are parsed as those of a llama-server.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.errors import RequestError, UpstreamError
from llcuda_net.upstream.llama.failures import NOT_JSON, upstream_failure
from llcuda_net.upstream.llama.sse import EventResponse


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    #: Of reasoning models: vLLM and llama-server, and others.
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None

    @property
    def thought(self) -> str:
        """The reasoning in it."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def called(self) -> str:
        """The names and arguments of tool calls in it."""
        functions = [call.function for call in self.tool_calls or () if call.function is not None]
        return "".join((each.name or "") + (each.arguments or "") for each in functions)


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Parts(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Parts | None = None

    @property
    def cached_tokens(self) -> int:
        """Of the prompt's tokens, those that were taken from a cache."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0

    @property
    def reasoning_tokens(self) -> int:
        """Of the answer's tokens, those that were thought; 0 where the server does not say."""
        details = self.completion_tokens_details
        return (details.reasoning_tokens or 0) if details is not None else 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ChatParser(EventResponse):
    """The response to one request.

    Attributes:
        pieces: output of any kind that has come: text, reasoning, tool calls; the owner takes the
            list and empties it.
        texts: the text alone, all that has come: what a conversation goes on with.
        thinks, calls: reasoning, tool calls were among the pieces.
        reason: why the answer ended; empty while it has not.
        usage: None where the server sent none.
        finished: `[DONE]` has come, or the response is complete.
        model, id: as the server says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.texts: list[str] = []
        self.thinks = self.calls = False
        self.reason = ""
        self.usage: Usage | None = None
        self.model: str | None = None
        self.id: str | None = None

    def __repr__(self) -> str:
        state = self.reason or ("finished" if self.finished else "open")
        return f"<ChatParser {state}, {len(self.pieces)} pieces>"

    def feed(self, data: bytes) -> None:
        """See EventResponse."""
        super().feed(data)
        if self.complete:
            self._at_end()

    def feed_eof(self) -> None:
        """See EventResponse."""
        super().feed_eof()
        self._at_end()

    def _at_end(self) -> None:
        """Without `[DONE]` an answer is whole if it gave its reason and ends with a whole event."""
        if self.unfinished.strip() in (b"", b"[DONE]"):
            self.finished = self.finished or bool(self.reason)

    def on_event(self, data: bytes | bytearray) -> None:
        """See EventResponse."""
        if data.strip() == b"[DONE]":
            self.finished = True
            return
        try:
            chunk = _decode(data)
        except NOT_JSON as error:
            raise _nonsense(f"not a chat completion chunk ({error})") from None
        if chunk.error is not None:
            raise upstream_failure(500, data)
        self.model, self.id = chunk.model or self.model, chunk.id or self.id
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None:
                thought, called = delta.thought, delta.called
                self.thinks = self.thinks or bool(thought)
                self.calls = self.calls or bool(called)
                if delta.content:
                    self.texts.append(delta.content)
                if output := thought + (delta.content or "") + called:
                    self.pieces.append(output)
            self.reason = choice.finish_reason or self.reason


def _nonsense(what: str) -> RequestError:
    return UpstreamError(f"the server did not answer by the chat completions API: {what}")
