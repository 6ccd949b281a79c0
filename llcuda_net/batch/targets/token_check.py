"""Whether a server counts its tokens as a tokenizer does: some answers are kept, and counted again.

Rates are of tokens, and tokens are what the server says. Text is not always split in the way in
which it was generated, and the token that ends an answer has no text: small differences mean
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.errors import LlcudaError, Unsupported
from llcuda_net.upstream.llama.transport.origin import decoder
from llcuda_net.util.numbers import three_digits

#: Answers that are kept: the last ones.
KEPT = 16
#: A difference beyond this is worth a caution.
MOST = 0.02


class _Tokens(msgspec.Struct):
    tokens: list[Any]


#: What a /tokenize answers.
tokens_in = decoder(_Tokens, "/tokenize gave no tokens")
#: The number of tokens of a text.
Count = Callable[[str], Awaitable[int]]


class Sample(NamedTuple):
    """An answer: its text, the tokens that were counted, and whether the model ended it."""

    text: str
    tokens: int
    ended: bool


class Sampled:
    """A target that keeps some answers.

    Attributes:
        by: who counted the tokens: "usage", "pieces" (nobody did), or "server".
        tokenizer: what `count` asks, in words; empty where there is none.
    """

    by = "server"
    tokenizer = ""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def keep(self, record: Record, answer: Answer, output: str | None = None) -> None:
        """Keep an answer for the check.

        Args:
            output: all that was generated; None: the answer's text.
        """
        output = answer.text if output is None else output
        if output:
            self.samples.append(Sample(output, record.tokens, answer.reason == "stop"))

    async def count(self, text: str) -> int:
        """The tokens of a text, by the server's own tokenizer.

        Raises:
            RequestError: it has none, or fails.
        """
        raise Unsupported("the server has no tokenizer to ask")

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know of how it answered."""
        return []


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What the check found.

    Attributes:
        by: who counted, see Sampled.
        tokenizer: what counted again, in words; empty: nothing did.
        why: why nothing did.
        answers: how many were counted again.
        counted, tokenized: their tokens, both ways.
        ended: how many of them the model ended, each with a token that has no text.
    """

    by: str
    tokenizer: str = ""
    why: str = ""
    answers: int = 0
    counted: int = 0
    tokenized: int = 0
    ended: int = 0

    @property
    def difference(self) -> float | None:
        """What the tokenizer counts more, as a share of what was counted; None if not checked."""
        if not self.counted:
            return None
        more = self.tokenized - self.counted
        if more < 0:
            more = min(0, more + self.ended)
        return more / self.counted

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "counted_by": self.by,
            "tokenizer": self.tokenizer or None,
            "why": self.why or None,
            "answers": self.answers,
            "counted": self.counted,
            "tokenized": self.tokenized,
            "difference": self.difference,
        }

    @property
    def caution(self) -> str | None:
        """What a reader must know; None where nothing."""
        found = self.difference
        if found is None or abs(found) <= MOST:
            return None
        return (
            f"tokens by {self.by} are not those of the tokenizer ({self.tokenizer}): it counts"
            f" {self.tokenized:,} in {self.answers} answers, where {self.counted:,} were counted"
            f" ({found:+.1%}). Rates and times per token are off by as much"
        )


def shorter(records: Iterable[Record], most: int, *, natural: bool) -> list[str]:
    """The line that says how long answers were, where they were shorter than they might be.

    Args:
        most: tokens that were asked for, where a record does not say.
        natural: answers might end where the model ends them.
    """
    done = [record for record in records if record.done and record.counted]
    wanted = sum(record.wanted_tokens or most for record in done)
    found = sum(record.tokens for record in done)
    if not done or found >= (1 - MOST) * wanted:
        return []
    text = (
        f"answers had {three_digits(found / len(done))} tokens on average, where"
        f" {three_digits(wanted / len(done))} were"
    )
    if natural:
        return [f"{text} allowed (--natural-ends)"]
    return [f"{text} asked for: the server ends them where the model does. Compare rates of tokens"]


async def check(
    samples: Sequence[Sample], by: str, count: Count | None, tokenizer: str
) -> TokenCheck:
    """Count the answers again.

    Args:
        count: the tokenizer; None: there is none at hand.
        tokenizer: what it is, in words.
    """
    if count is None:
        return TokenCheck(by, why="no tokenizer is at hand")
    if not samples:
        return TokenCheck(by, why="no answer had a text")
    tokenized = 0
    try:
        for sample in samples:
            tokenized += await count(sample.text)
    except LlcudaError as error:
        return TokenCheck(by, why=f"{tokenizer}: {error}")
    return TokenCheck(
        by,
        tokenizer,
        answers=len(samples),
        counted=sum(sample.tokens for sample in samples),
        tokenized=tokenized,
        ended=sum(sample.ended for sample in samples),
    )
