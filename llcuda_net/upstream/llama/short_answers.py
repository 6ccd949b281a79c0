"""What is needed of the answers to short requests: the rest is passed over, and takes no memory."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llcuda_net.upstream.interface import Relevance
from llcuda_net.upstream.llama.failures import nonsense
from llcuda_net.upstream.llama.transport.origin import decoder

#: Most bytes of vectors in one answer, and most numbers: each takes 32 bytes here.
MAX_VECTORS, MOST_NUMBERS = 64 << 20, 4 << 20

_Count = Annotated[int, Meta(ge=0)]


class _Slot(msgspec.Struct):
    id: int
    is_processing: bool


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[_Count]


class _RawTokens(msgspec.Struct):
    tokens: msgspec.Raw


class _Content(msgspec.Struct):
    content: str


class _Row(msgspec.Struct):
    embedding: Annotated[list[float | list[float]], Meta(min_length=1)]


class _Score(msgspec.Struct):
    index: _Count
    relevance_score: float


class _Read(msgspec.Struct):
    prompt_tokens: _Count = 0


class _Ranking(msgspec.Struct):
    results: list[_Score]
    usage: _Read = msgspec.field(default_factory=_Read)


health = decoder(msgspec.Raw, "/health is not JSON")
nothing = decoder(msgspec.Raw, "the answer is not JSON")
slots = decoder(list[_Slot], "/slots gave no slots")
prompt = decoder(_Prompt, "/apply-template gave no prompt")
tokens = decoder(_Tokens, "/tokenize gave no tokens")
content = decoder(_Content, "/detokenize gave no text")
_raw_tokens = decoder(_RawTokens, "/tokenize gave no tokens")
_rows = decoder(list[_Row], "/embedding gave no vectors")
_ranking = decoder(_Ranking, "/rerank gave no scores")


def tokens_as_json(data: bytes) -> bytes:
    """The array of tokens in an answer of /tokenize.

    Raises:
        RequestError: there is none.
    """
    found = bytes(_raw_tokens(data).tokens)
    if not found.startswith(b"["):
        raise nonsense("/tokenize gave no tokens")
    return found


def rows(data: bytes) -> list[list[list[float]]]:
    """The rows of each text in an answer of /embedding.

    Raises:
        RequestError: there are none, or too many numbers.
    """
    if data.count(b",") > MOST_NUMBERS:
        raise nonsense(f"/embedding gave more than {MOST_NUMBERS} numbers")
    return [_rows_of(entry.embedding) for entry in _rows(data)]


def _rows_of(values: list[float | list[float]]) -> list[list[float]]:
    """The rows of a text: a vector that is not in a list is the only one."""
    found = [value for value in values if isinstance(value, list)]
    if not found:
        return [[value for value in values if not isinstance(value, list)]]
    if len(found) < len(values):
        raise nonsense("/embedding gave no vectors (but numbers beside them)")
    return found


def relevance(data: bytes, documents: int) -> Relevance:
    """The scores of so many documents in an answer of /rerank, which has them by rank.

    Raises:
        RequestError: it has not one of each.
    """
    answer = _ranking(data)
    scores = {one.index: one.relevance_score for one in answer.results}
    if len(answer.results) != documents or sorted(scores) != list(range(documents)):
        raise nonsense(f"/rerank gave no scores for {documents} documents")
    return Relevance(tuple(scores[i] for i in range(documents)), answer.usage.prompt_tokens)
