"""Embeddings: texts to an upstream in batches, and its rows to one vector per text.

What has documents ranked takes slots as embeddings do, batch by batch: see `on_slots`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import trio

from llcuda_net.errors import RequestError, UpstreamNotReady
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.upstream.interface import DOWN, EmbedTexts, Upstream, is_for_another
from llcuda_net.upstream.llama.failures import nonsense
from llcuda_net.upstream.prompts.prefix_cache import tokens_in
from llcuda_net.upstream.slots.lease import Lease, held
from llcuda_protocol import ErrorCode

#: Texts embedded, or ranked, in one call of the upstream, for which one slot is held.
BATCH = 64
#: Characters that one piece of a long text has at first, and at least.
PIECE, LEAST_PIECE = 512, 32
#: Characters of a text that count; those behind them are left out.
MAX_TEXT = 32_768

_T = TypeVar("_T")
#: Enters the queue with so many tokens to be read.
Enter = Callable[[int], Ticket]
#: Has a ticket wait once more, for another upstream than those named; returns whether there is one.
Again = Callable[[Ticket, frozenset[str]], bool]


async def embed(
    texts: Sequence[str | list[int]],
    enter: Enter,
    again: Again,
) -> list[bytes]:
    """One vector per text, float32, little-endian.

    Args:
        texts: or token ids of texts.
        enter, again: see there.

    Raises:
        RequestError: the queue is full, or the upstreams fail or give no vectors.
    """
    vectors: list[bytes] = []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        tokens = sum(tokens_in(one) if isinstance(one, str) else len(one) for one in batch)

        async def ask(
            upstream: Upstream, batch: list[str | list[int]] = batch
        ) -> list[list[list[float]]]:
            return await upstream.embed(batch)

        found = await on_slots(enter(tokens), again, ask)
        try:
            vectors += [_pack(_mean(rows)) for rows in found]
        except (struct.error, TypeError, ValueError, OverflowError):
            raise nonsense("/embedding gave no vectors") from None
    return vectors


async def on_slots(ticket: Ticket, again: Again, ask: Callable[[Upstream], Awaitable[_T]]) -> _T:
    """What an upstream answers, asked once it has a slot; another one where it fails.

    Raises:
        RequestError: the queue is full, or none of them answers.
    """
    failed: frozenset[str] = frozenset()
    async with ticket:
        while True:
            lease = held(ticket.lease)
            try:
                return await _asked(lease, ask)
            except RequestError as error:
                if not isinstance(error, UpstreamNotReady):  # it may be asked again
                    failed |= {lease.backend.name}
                if not is_for_another(error) or not again(ticket, failed):
                    raise
            await ticket.acquire()


async def _asked(lease: Lease, ask: Callable[[Upstream], Awaitable[_T]]) -> _T:
    with lease.use():
        try:
            return await ask(lease.backend.upstream)
        except RequestError as error:
            if error.code in DOWN:
                lease.failed(error)
            raise


def _mean(rows: list[list[float]]) -> list[float]:
    """The mean of a text's rows, of which an upstream that does not pool gives one per token."""
    if len(rows) == 1:
        return rows[0]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _pack(vector: list[float]) -> bytes:
    if not vector:
        raise ValueError("a vector without components")
    return struct.pack(f"<{len(vector)}f", *vector)


class LongTexts:
    """Embeds texts of any length: in pieces, whose vectors are averaged by their lengths.

    An upstream bounds the tokens of one text, and reports that only when it refuses one. So pieces
    are bounded in characters, and halved until they are accepted; the bound found is kept.

    A call embeds a few pieces, of so many characters together: short texts are embedded together,
    which a llama-server does in half the time. A llama-server that is cancelled finishes what it
    computes first, so a request that comes meanwhile may wait for that, and it should be little. A
    cancelled call loses only its own pieces: the same texts, embedded again, go on from there.

    Args:
        embed: the upstream's.
        together: characters of one call.
    """

    def __init__(self, embed: EmbedTexts, together: int = PIECE) -> None:
        self.piece = PIECE
        self._most = together
        self._embed = embed
        self._known: dict[str, list[float]] = {}

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text; an empty one for a text of nothing but white space.

        Raises:
            RequestError: the upstream fails, or refuses even short pieces.
        """
        while True:
            try:
                found = await self._vectors([pieces(text, self.piece) for text in texts])
            except RequestError as error:
                self._known.clear()
                if error.code != ErrorCode.CONTEXT_EXCEEDED or self.piece <= LEAST_PIECE:
                    raise
                self.piece //= 2
            else:
                self._known.clear()
                return found

    async def _vectors(self, texts: list[list[str]]) -> list[list[float]]:
        needed = dict.fromkeys(piece for text in texts for piece in text)
        for other in self._known.keys() - needed.keys():
            del self._known[other]
        try:
            for some in _calls([one for one in needed if one not in self._known], self._most):
                found = await self._embed(some)
                # In a thread: an upstream that does not pool gives one row per token.
                means = await trio.to_thread.run_sync(_means, found)
                self._known.update(zip(some, means, strict=True))
            return await trio.to_thread.run_sync(self._together, texts)
        except (TypeError, ValueError):
            raise nonsense("/embedding gave no vectors") from None

    def _together(self, texts: list[list[str]]) -> list[list[float]]:
        known = self._known
        return [_weighted([known[one] for one in text], [*map(len, text)]) for text in texts]


def _calls(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """Texts in order, as many together as one call embeds."""
    some: list[str] = []
    size = 0
    for text in texts:
        if some and size + len(text) > most:
            yield some
            some, size = [], 0
        some.append(text)
        size += len(text)
    if some:
        yield some


def _means(texts: list[list[list[float]]]) -> list[list[float]]:
    return [_mean(rows) for rows in texts]


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
