"""The answer to /v1/chat/completions: its chunks become the events of a completion.

The format is OpenAI's (https://platform.openai.com/docs/api-reference/chat-streaming), with what
llama-server adds to it: timings in every chunk, `reasoning_content`, and, asked for by `verbose`,
the string that stopped it. A chunk may hold text, reasoning and parts of several tool calls: each
becomes an event of its own. Of tokens that are held back, since they may become a tool call,
nothing comes but, where they were asked for, their log-probabilities.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

import msgspec

from llcuda_net.upstream.interface import (
    REASONING,
    TOOL_CALL,
    Channel,
    CompletionEvent,
    Count,
    Probabilities,
    Timings,
)
from llcuda_net.upstream.llama.failures import NOT_JSON, nonsense, upstream_failure
from llcuda_net.upstream.llama.sse import MAX_EVENT, EventResponse

#: Most tool calls of one answer, and the longest id and name of one, in characters.
MOST_CALLS, LONGEST_NAME = 256, 256
#: Most events that an answer may have beyond one a token: each is kept.
MOST_BESIDES = 4096

_REASONING = Channel(REASONING)
#: OpenAI's finish reasons as llama-server's stop types.
_STOP_TYPES = {"stop": "eos", "length": "limit", "tool_calls": "tool_calls"}


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: Count = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Probabilities] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    index: Count = 0
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class _Usage(msgspec.Struct, gc=False):
    completion_tokens: Count = 0
    prompt_tokens: Count = 0
    prompt_tokens_details: _Details | None = None


class _Timings(Timings, gc=False):
    predicted_n: Count = 0


class _Verbose(msgspec.Struct, gc=False):
    stop_type: str = ""
    stopping_word: str = ""
    truncated: bool = False


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    verbose: _Verbose | None = msgspec.field(default=None, name="__verbose")


_decode = msgspec.json.Decoder(_Chunk).decode


class ChatParser(EventResponse):
    """The answer to /v1/chat/completions.

    After each `feed`, `events` holds what has come; the owner takes the list and empties it. Each
    event has the number of tokens so far: the upstream's where it tells it, else one more for each
    event.

    Args:
        longest: bytes that an event may have.
        stops: the stop strings that were asked for; templates have more of their own.
        one_call: the answer ends with its first tool call; not every upstream obeys.

    Attributes:
        cut: it was ended there.
    """

    def __init__(
        self, longest: int = MAX_EVENT, *, stops: Collection[str] = (), one_call: bool = False
    ) -> None:
        super().__init__(longest)
        self.cut = False
        self._stops = stops
        self._one_call = one_call
        self.events: list[CompletionEvent] = []
        self._channel: Channel | None = None  # of the last event
        self._calls: list[Channel] = []
        self._tokens = 0
        self._besides = 0
        self._end: CompletionEvent | None = None  # waits for the usage, which comes behind it
        self._timings: _Timings | None = None
        self._model = ""

    def on_event(self, data: bytes | bytearray) -> None:
        """See EventResponse; the last event has `stop` set."""
        try:
            chunk = _decode(data)
        except NOT_JSON as error:
            if data.strip() == b"[DONE]":
                self._finish()
                return
            said = bytes(data[:60]).decode("utf-8", "replace")
            raise nonsense(f"not a chunk of a chat ({error}): {said!r}") from None
        if bytes(chunk.error) != b"null":
            raise upstream_failure(500, data)
        if chunk.choices is None:
            raise nonsense("a chunk of a chat without choices")
        predicted = 0
        if chunk.timings is not None:
            self._timings = chunk.timings
            predicted = chunk.timings.predicted_n
        for choice in chunk.choices:
            if choice.index:
                raise nonsense("a second answer to one chat")
            if self._end is not None:
                continue  # some servers repeat it with the usage
            self._take(choice, predicted)
            if self.cut:
                self._model = chunk.model or ""
                self._end = CompletionEvent(stop=True, stop_type="tool_calls")
                self._finish()
                return
            if choice.finish_reason is not None:
                self._model = chunk.model or ""
                self._end = self._ended(choice.finish_reason, chunk.verbose)
        if chunk.usage is not None and self._end is not None:
            self._count(chunk.usage)
            self._finish()

    def feed_eof(self) -> None:
        """See EventResponse; where the end was told, nothing is missing."""
        super().feed_eof()
        self._finish()

    def on_message_complete(self) -> None:
        """See EventResponse; as `feed_eof`."""
        super().on_message_complete()
        if self.complete and self._failure is None:
            self._finish()

    # -- a chunk ------------------------------------------------------------------------------

    def _take(self, choice: _Choice, predicted: int) -> None:
        """Add the events of a choice.

        Args:
            predicted: tokens so far, by the upstream's count; 0 where it does not tell.
        """
        found: list[tuple[str, Channel | None]] = []
        delta = choice.delta
        if delta.reasoning_content:
            found.append((delta.reasoning_content, _REASONING))
        if delta.content:
            found.append((delta.content, None))
        for call in delta.tool_calls or ():
            if self._one_call and call.index and self._calls:
                self.cut = True
                break
            of, is_new = self._call(call)
            arguments = (call.function.arguments if call.function is not None else None) or ""
            if arguments or is_new:
                found.append((arguments, of))
        scored = choice.logprobs.content if choice.logprobs is not None else None
        if not found:
            if self.cut:
                return
            if not scored and predicted <= self._tokens:
                return
            found.append(("", self._channel))  # tokens, and nothing to see of them yet
        self._besides += len(found) - (predicted > self._tokens or not predicted)
        if self._besides > MOST_BESIDES:
            raise nonsense("a chat with many more parts than tokens")
        for text, channel in found:
            self._tokens = predicted or self._tokens + 1
            event = CompletionEvent(text, tokens_predicted=self._tokens, channel=channel)
            if scored:
                event.tokens = [one.id for one in scored]
                event.completion_probabilities, scored = scored, None
            self.events.append(event)
            self._channel = channel

    def _call(self, call: _Call) -> tuple[Channel, bool]:
        """The channel of a part of a tool call, and whether the call begins with it."""
        if call.index < len(self._calls):
            return self._calls[call.index], False
        name = call.function.name if call.function is not None else None
        if call.index > len(self._calls) or not name:
            raise nonsense("a tool call without a beginning")
        id_ = call.id or f"call_{secrets.token_hex(12)}"
        if call.index >= MOST_CALLS or max(len(name), len(id_)) > LONGEST_NAME:
            raise nonsense(f"more than {MOST_CALLS} tool calls, or one of too long a name")
        channel = Channel(TOOL_CALL, call.index, id_, name)
        self._calls.append(channel)
        return channel, True

    # -- the end ------------------------------------------------------------------------------

    def _ended(self, reason: str, verbose: _Verbose | None) -> CompletionEvent:
        end = CompletionEvent(stop=True, stop_type=_STOP_TYPES.get(reason, "eos"))
        if self._calls and end.stop_type == "eos":
            end.stop_type = "tool_calls"  # some servers say "stop" here, too
        if verbose is not None:
            end.truncated = verbose.truncated
            if verbose.stop_type == "word" and verbose.stopping_word in self._stops:
                end.stop_type, end.stopping_word = "word", verbose.stopping_word
        return end

    def _count(self, usage: _Usage) -> None:
        assert self._end is not None
        self._tokens = usage.completion_tokens or self._tokens
        self._end.tokens_evaluated = usage.prompt_tokens
        details = usage.prompt_tokens_details
        if self._timings is None and details is not None:
            self._timings = _Timings(cache_n=details.cached_tokens or 0)

    def _finish(self) -> None:
        """Add the last event, if the end was told."""
        end = self._end
        if end is None or self.finished:
            return
        timings = self._timings
        end.tokens_predicted = self._tokens
        end.timings = timings
        end.model = self._model
        if timings is not None and not end.tokens_evaluated:
            end.tokens_evaluated = timings.cache_n + timings.prompt_n
        self.events.append(end)
        self.finished = True
