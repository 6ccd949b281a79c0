"""Embeddings: texts to the upstream in batches, and what it gives to one vector a text."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence

import trio

from llcuda_net.admission import Admission
from llcuda_net.errors import RequestError
from llcuda_net.upstream.completion import nonsense
from llcuda_net.upstream.interface import Upstream
from llcuda_protocol import ErrorCode

#: Texts embedded in one call of the upstream, for each of which a slot is held.
_BATCH = 64
#: Characters that one piece of a long text has at first, and at least.
PIECE, LEAST_PIECE = 512, 32
#: Seconds that one call of the upstream should take: whoever comes meanwhile may wait for its end,
#: since llama-server notices only now and then that nobody wants it any more.
_CALL = 0.05
#: Characters of a text that count; what is behind them is left out.
MAX_TEXT = 32_768

#: Gives each text its rows, as Upstream.embed does.
EmbedTexts = Callable[[list[str]], Awaitable[list[list[list[float]]]]]


async def embed(texts: Sequence[str], upstream: Upstream, admission: Admission) -> list[bytes]:
    """A vector a text, float32, little-endian.

    Raises:
        RequestError: the queue is full, or the upstream fails or gives no vectors.
    """
    vectors: list[bytes] = []
    for start in range(0, len(texts), _BATCH):
        async with admission.enter():
            found = await upstream.embed(list(texts[start : start + _BATCH]))
        try:
            vectors += [_pack(_mean(rows)) for rows in found]
        except (struct.error, TypeError, ValueError, OverflowError):
            raise nonsense("/embedding gave no vectors") from None
    return vectors


def _mean(rows: list[list[float]]) -> list[float]:
    """The mean of a text's rows, which an upstream that does not pool gives one a token."""
    if len(rows) == 1:
        return rows[0]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _pack(vector: list[float]) -> bytes:
    if not vector:
        raise ValueError("a vector without components")
    return struct.pack(f"<{len(vector)}f", *vector)


class LongTexts:
    """Embeds texts of any length: in pieces, whose vectors are averaged by their lengths.

    An upstream bounds the tokens of one text, and says so only when it refuses one. So pieces are
    bounded in characters, and halved until they are taken; what was learnt is kept.

    Args:
        most: pieces embedded in one call at most; fewer where a call takes long.
    """

    def __init__(self, embed: EmbedTexts, most: int = 1) -> None:
        self.piece = PIECE
        self.most = most
        self._width = most
        self._embed = embed

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector a text; an empty one for a text of nothing but white space.

        Raises:
            RequestError: the upstream fails, or refuses even short pieces.
        """
        while True:
            try:
                return await self._vectors([pieces(text, self.piece) for text in texts])
            except RequestError as error:
                if error.code != ErrorCode.CONTEXT_EXCEEDED or self.piece <= LEAST_PIECE:
                    raise
                self.piece //= 2

    async def _vectors(self, texts: list[list[str]]) -> list[list[float]]:
        flat = [piece for text in texts for piece in text]
        found: list[list[list[float]]] = []
        while len(found) < len(flat):
            width = max(1, min(self._width, self.most))
            started = trio.current_time()
            found += await self._embed(flat[len(found) : len(found) + width])
            quick = trio.current_time() - started < _CALL
            self._width = width + 1 if quick else width // 2
        try:
            # Not here: an upstream that does not pool gives a row a token.
            return await trio.to_thread.run_sync(_together, texts, found)
        except (TypeError, ValueError):
            raise nonsense("/embedding gave no vectors") from None


def _together(texts: list[list[str]], found: list[list[list[float]]]) -> list[list[float]]:
    out, first = [], 0
    for text in texts:
        part = [_mean(rows) for rows in found[first : first + len(text)]]
        out.append(_weighted(part, [len(piece) for piece in text]))
        first += len(text)
    return out


def _weighted(vectors: list[list[float]], weights: list[int]) -> list[float]:
    if len(vectors) < 2:
        return [float(x) for x in vectors[0]] if vectors else []
    total = sum(weights)
    columns = zip(*vectors, strict=True)
    return [sum(x * w for x, w in zip(column, weights, strict=True)) / total for column in columns]


def pieces(text: str, longest: int) -> list[str]:
    """The text cut where there is white space into pieces of at most so many characters."""
    rest = text[:MAX_TEXT].strip()
    out = []
    while len(rest) > longest:
        cut = max(rest.rfind(" ", 0, longest + 1), rest.rfind("\n", 0, longest + 1))
        cut = cut if cut > longest // 2 else longest
        out.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*out, rest] if rest else out
