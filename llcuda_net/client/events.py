"""What a reader of a generation receives: its pieces, its progress, and the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from llcuda_protocol import TokenLogprob


class Piece(NamedTuple):
    """A piece of the answer, most often one token.

    Attributes:
        sequence: its place in the answer, counted from 0.
        text: the text; pieces joined make up the answer.
        id: the id of its last token, where `tokens=True` asked for ids.
        logprobs: its tokens with natural log-probabilities, where `n_probs` asked for them.
    """

    sequence: int
    text: str
    id: int | None = None
    logprobs: list[TokenLogprob] | None = None


class Queued(NamedTuple):
    """The queue moved.

    Attributes:
        position: its place: 1 is the next to run, 0 has a slot.
        wait: estimated seconds until it runs; None without an estimate.
        reason: what it waits for, in words for a person.
    """

    position: int
    wait: float | None = None
    reason: str | None = None


class Durable(NamedTuple):
    """So many pieces of the generation can no longer be lost, not even by a power cut.

    Counted from the generation's very first. Comes only where `durable=True` asked for it.
    """

    pieces: int


class Spliced(NamedTuple):
    """An upstream failed, and another one, or that one again, continues: from here.

    Comes only where `splices=True` asked for it, before piece number `position` (or the end).

    Attributes:
        position: the sequence number of the first piece that is made after the failure.
        reason: why, in words for a person.
    """

    position: int
    reason: str | None = None


Event = Piece | Queued | Durable | Spliced


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer. `str(result)` is its text.

    Attributes:
        text: the answer.
        reason: "stop" (end of text or a stop string), "length" (n_predict or the context is
            used up), "cancelled" or "detached".
        stop: the stop string that ended it, if one did.
        usage: counts of tokens: `prompt_tokens`, `cached_tokens`, `completion_tokens`.
        timings: milliseconds by phase: `queue`, `template`, `connect`, `prompt`, `first_token`,
            `generation`, `total`; those that the request went through.
        id: the generation's id on the server.
        model: the model's name.
        ids: one token id per piece, where `tokens=True` asked for them.
        logprobs: one list of tokens per piece, where `n_probs` asked for them.
        splices: sequence numbers of pieces before which the generation was continued from all
            that there was, after the server had stopped or its upstream had failed.
        cached: a stored result answered the request.
    """

    text: str
    reason: str
    stop: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    id: str | None = None
    model: str | None = None
    ids: list[int | None] | None = None
    logprobs: list[list[TokenLogprob]] | None = None
    splices: list[int] = field(default_factory=list)
    cached: bool = False

    def __str__(self) -> str:
        return self.text
