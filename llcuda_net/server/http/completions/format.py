"""The answer to a completion, whole and as events; see delivery/format.py.

Everything here is a pure function of generations and of the format, so that this server and the
next one write the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.delivery.format import Commented
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.answers import (
    finish_reason,
    logprobs_of,
    ours,
    system_fingerprint,
    usage_of,
)
from llcuda_net.server.http.openai.chunks import error_event

_encode = msgspec.json.Encoder().encode


class CompletionFormat(Commented, msgspec.Struct, frozen=True, omit_defaults=True):
    """How the answer to a completion is written.

    Attributes:
        model: the name of the model that answers.
        n: choices of each prompt.
        logprobs: how many alternatives of each token to write; None: no log-probabilities.
        usage: a stream ends with what was used.
        stream: the answer is streamed.
        echo: the text of each prompt, which stands before its answers; empty: none does.
    """

    model: str
    n: int = 1
    logprobs: int | None = None
    usage: bool = False
    stream: bool = False
    echo: list[str] = []

    kind: ClassVar[str] = "completion"
    eager: ClassVar[bool] = False
    tail: ClassVar[bytes] = b"data: [DONE]\n\n"

    def writer(
        self, generation: Generation, index: int, first: Generation, after: int | None
    ) -> CompletionChunks:
        """See Format."""
        return CompletionChunks(generation, self, index, first)

    def total(self, generations: Sequence[Generation]) -> bytes | None:
        """What was used, where that is wanted."""
        if not self.usage:
            return None
        members = {
            **_members(generations[0], self),
            "choices": [],
            "usage": self._used(generations),
        }
        return _encode(members)

    def error(self, error: HttpError) -> bytes:
        """See Format."""
        return error_event(error)

    def whole(self, generations: Sequence[Generation]) -> bytes:
        """See Format."""
        choices = [self._choice(one, index) for index, one in enumerate(generations)]
        answer = {
            **_members(generations[0], self),
            "choices": choices,
            "usage": self._used(generations),
            "llcuda": ours(generations[0]),
        }
        return _encode(answer)

    def before(self, index: int) -> str:
        """What stands before the answer of a choice."""
        return self.echo[index // self.n] if self.echo else ""

    def _choice(self, generation: Generation, index: int) -> dict[str, Any]:
        before = self.before(index)
        written = None
        if self.logprobs is not None and generation.logprobs is not None:
            written = _logprobs(generation.logprobs, self.logprobs, len(before))
        return {
            "text": before + "".join(generation.pieces),
            "index": index,
            "logprobs": written,
            "finish_reason": finish_reason(generation),
        }

    def _used(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """What all have used; each prompt counts once."""
        usage = usage_of(generations)
        asked = [one.outcome.usage for one in generations[:: self.n]]
        usage["prompt_tokens"] = sum(one.get("prompt_tokens", 0) for one in asked)
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        cached = sum(one.get("cached_tokens", 0) for one in asked)
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return usage


class CompletionChunks:
    """Makes the events of one choice; see Writer.

    Args:
        generation: what is read; its log must be in memory where a piece of it is written.
        form: of the answer.
        index: of the choice, where there are several.
        first: the generation of the first choice, by which the answer is named.
    """

    def __init__(
        self, generation: Generation, form: CompletionFormat, index: int, first: Generation
    ) -> None:
        self._generation = generation
        self._form = form
        common = _encode(_members(first, form))[:-1]
        self._before = b'%b,"choices":[{"text":' % common
        self._index = b',"index":%d,"logprobs":' % index
        self._usage = b',"usage":null' if form.usage else b""
        self._after = b'%bnull,"finish_reason":null}]%b}' % (self._index, self._usage)
        self._echo = form.before(index)
        #: Characters before the text of the piece at `_next`.
        self._offset, self._next = len(self._echo), 0

    def __repr__(self) -> str:
        return f"<CompletionChunks of {self._generation.id}>"

    def begin(self) -> bytes:
        """There is nothing before the first piece."""
        return b""

    def at(self, position: int, id_: bytes) -> bytes:
        """The event of the piece at this position; fastest where they are taken in order."""
        generation = self._generation
        piece = generation.pieces[position]
        text = _encode(piece if position else self._echo + piece)
        most = self._form.logprobs
        if most is None or generation.logprobs is None:
            return b"id: %b\ndata: %b%b%b\n\n" % (id_, self._before, text, self._after)
        if position != self._next:
            self._offset = len(self._echo) + sum(map(len, generation.pieces[:position]))
        written = _encode(
            _logprobs(generation.logprobs[position : position + 1], most, self._offset)
        )
        self._offset, self._next = self._offset + len(piece), position + 1
        after = b'%b%b,"finish_reason":null}]%b}' % (self._index, written, self._usage)
        return b"id: %b\ndata: %b%b%b\n\n" % (id_, self._before, text, after)

    def last(self, id_: bytes) -> bytes:
        """The last event of the choice, which says why it ended."""
        generation = self._generation
        chunk = b'%b%b%bnull,"finish_reason":%b}]%b,"llcuda":%b}' % (
            self._before,
            _encode("" if generation.count else self._echo),
            self._index,
            _encode(finish_reason(generation)),
            self._usage,
            _encode(ours(generation)),
        )
        return b"id: %b\ndata: %b\n\n" % (id_, chunk)

    def failed(self, error: HttpError, id_: bytes) -> bytes:
        """The error, in an event without an id: it may be otherwise the next time."""
        return error_event(error)


def _members(first: Generation, form: CompletionFormat) -> dict[str, Any]:
    """The members that an answer, or each event of one, begins with."""
    return {
        "id": f"cmpl-{first.id}",
        "object": "text_completion",
        "created": first.created // 1_000_000_000,
        "model": form.model or str(first.model.get("name") or ""),
        "system_fingerprint": system_fingerprint(first),
    }


def _logprobs(pieces: Sequence[msgspec.Raw], most: int, offset: int) -> dict[str, Any]:
    """The tokens of pieces as this API has them.

    Args:
        most: alternatives of each.
        offset: characters of the text before them.
    """
    tokens: list[str] = []
    logprobs: list[float] = []
    alternatives: list[dict[str, float]] = []
    offsets: list[int] = []
    for packed in pieces:
        for token in logprobs_of(packed, most):
            tokens.append(token["token"])
            logprobs.append(token["logprob"])
            alternatives.append({top["token"]: top["logprob"] for top in token["top_logprobs"]})
            offsets.append(offset)
            offset += len(token["token"])
    return {
        "tokens": tokens,
        "token_logprobs": logprobs,
        "top_logprobs": alternatives if most else None,
        "text_offset": offsets,
    }
