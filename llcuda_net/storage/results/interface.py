"""Where results live: what any store can do. `sqlite.SqliteStore` is one.

Every method blocks, and is to be called from a thread; one store object serves one thread at a
time. An `owner` of None means everybody's results; of "" those that are nobody's. Times are
wall-clock nanoseconds. Every method may raise StorageError.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llcuda_net.storage.records import Logprobs, Result

#: Marks around what a search found.
HIGHLIGHT = ("\x02", "\x03")


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which results; every condition that is set must hold.

    Attributes:
        id: this one.
        model: the model's name.
        since: created then or later.
        until: created before then.
        states: any of these; empty: all.
        owner: see the module.
        limit: at most so many; None: all.
        after: go on behind this result of the same query, in its order.
    """

    id: str | None = None
    model: str | None = None
    since: int | None = None
    until: int | None = None
    states: Collection[str] = ()
    owner: str | None = None
    limit: int | None = 50
    after: str | None = None


@dataclass(frozen=True)
class Summary:
    """A result in a list.

    Attributes:
        tokens: completion tokens.
        preview: the beginning of the prompt, or of the last message.
        size: bytes it takes in the store, counted as if it shared nothing.
    """

    id: str
    created: int
    finished: int
    state: str
    model: str
    owner: str
    tokens: int
    prompt_tokens: int
    size: int
    preview: str


@dataclass(frozen=True)
class Hit:
    """A result that a search found.

    Attributes:
        score: larger is better.
        prompt: where the prompt has the words, an excerpt with HIGHLIGHT around them.
        text: the same of what was generated.
    """

    summary: Summary
    score: float
    prompt: str
    text: str


@dataclass(frozen=True)
class Figures:
    """How sure the model was of a result; in nats. None: not a finite number.

    Attributes:
        tokens: how many had a log-probability.
        mean_surprisal: mean of -log p of the tokens that were taken.
        perplexity: exp(mean_surprisal).
        mean_entropy: of the distributions they were taken from, as far as they are known.
        least_certain: the run of tokens with the greatest mean surprisal: first, and behind last.
        span_surprisal: that mean.
    """

    tokens: int
    mean_surprisal: float | None
    perplexity: float | None
    mean_entropy: float | None
    least_certain: tuple[int, int]
    span_surprisal: float | None


@dataclass(frozen=True)
class Space:
    """Embeddings that can be compared with each other: of one model, dimension and recipe.

    Attributes:
        model: the model's fingerprint.
        recipe: which texts are embedded, and how they are put together.
        seq: results up to this number are in it.
    """

    id: int
    model: dict[str, Any]
    dim: int
    recipe: int
    seq: int


@dataclass(frozen=True)
class Document:
    """The texts of a result: what was asked, and what was generated; and whose it is."""

    seq: int
    owner: str
    question: str
    answer: str


@dataclass(frozen=True)
class Embedding:
    """A result's embedding: int8 codes, times `scale` of length 1; `id` grows as they are added."""

    id: int
    seq: int
    owner: str
    scale: float
    codes: bytes


@dataclass(frozen=True)
class Problem:
    """Something that is not what was stored; `id` is a result's, or empty."""

    id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What to delete: what is older, and then the oldest until the rest fits.

    Attributes:
        before: delete what was created before then.
        max_bytes: keep at most so many.
        owner: see the module.
    """

    before: int | None = None
    max_bytes: int | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a prune would delete: results, their bytes, and the newest one's time of creation."""

    results: int = 0
    bytes: int = 0
    newest: int | None = None


@dataclass(frozen=True)
class Step:
    """What one step of a prune deleted, and for how many seconds it kept others from writing."""

    results: int
    bytes: int
    blocked: float


@dataclass
class Stats:
    """Figures of what is stored.

    Attributes:
        bytes: the store's files together.
        tokens: of all days, as `prompt_tokens`.
        days: of every day, model and state, results and tokens ever stored, pruned ones included.
        unindexed: results that search does not find yet.
    """

    results: int = 0
    bytes: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    oldest: int | None = None
    newest: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    days: list[DayStats] = field(default_factory=list)
    unindexed: int = 0


@dataclass(frozen=True)
class DayStats:
    """One day (UTC, as 2026-01-31), model and state."""

    day: str
    model: str
    state: str
    results: int
    tokens: int
    prompt_tokens: int


#: Figures of log-probabilities, for each of several results.
Compute = Callable[[list[Logprobs]], list[Figures]]


class Analyses(Protocol):
    """What was computed of finished results, in the order in which they were stored.

    A result's number, `seq`, is never used again. What is pruned takes its analysis with it.
    """

    def figure(self, compute: Compute) -> bool:
        """Compute the figures of a few results that have none; whether there may be more."""

    def figures(self, result: str) -> Figures | None:
        """A result's figures, by its id; None: it has no log-probabilities, or not yet."""

    def spaces(self) -> list[Space]:
        """All spaces, newest first."""

    def open_space(self, model: dict[str, Any], dim: int, recipe: int, seq: int = 0) -> Space:
        """A new, empty space."""

    def know(self, space: Space, model: dict[str, Any]) -> None:
        """Keep the fingerprint of a space's model, of which more is known by now."""

    def unembedded(self, after: int, limit: int) -> list[Document]:
        """The first results behind this number."""

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """Add embeddings (seq, scale, codes); the space goes up to `upto` then, all or nothing."""

    def embeddings(self, space: int) -> Iterator[list[Embedding]]:
        """All embeddings of a space whose results are there, in the order they were added."""

    def count(self, space: int) -> int:
        """How many embeddings a space has."""

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        """Results by their numbers, each with the beginning of its text; those that are there."""

    def behind(self, seq: int, owner: str | None = None) -> int:
        """How many results of an owner lie behind this number."""

    def figured(self) -> int:
        """The number up to which there are figures."""


class Store(Protocol):
    """Results, by id."""

    @property
    def analyses(self) -> Analyses:
        """What was computed of them."""

    def put(self, results: Sequence[Result]) -> None:
        """Store results, all or none; on the disk when it returns. One already there is left."""

    def missing(self, ids: Collection[str]) -> set[str]:
        """Of these ids, those of no stored result."""

    def get(self, result: str, owner: str | None = None) -> Result | None:
        """A result whole, by its id."""

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with an idempotency key of this owner."""

    def find_cached(
        self, model: dict[str, object], request_hash: bytes, owner: str | None = None
    ) -> Result | None:
        """The newest result that answers this request to the model with this very fingerprint."""

    def find(self, query: Query) -> list[Summary]:
        """Results, newest first."""

    def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """As `find`, each with the beginning of its text."""

    def search(self, words: str, query: Query) -> list[Hit]:
        """Results with all these words in the prompt or the text, best first.

        A "quoted phrase" is found as a whole, word* finds what begins with it, and OR between
        words finds either; nothing else has a meaning of its own. `query.after` is not used.
        """

    def export(self, query: Query) -> Iterator[Result]:
        """Results whole, oldest first; never holds up a writer."""

    def verify(self) -> Iterator[Problem | None]:
        """Compute every content hash again: a problem, or None for what is well."""

    def plan(self, retention: Retention) -> Plan:
        """What `prune` would delete now."""

    def prune(self, retention: Retention) -> Iterator[Step]:
        """Delete, a step each time the iterator is advanced, each a short transaction."""

    def stats(self, owner: str | None = None) -> Stats:
        """Figures."""

    def settle(self) -> None:
        """Do what `put` left for after the acknowledgement; called by the same thread."""

    def derive(self) -> bool:
        """Bring search and days a few milliseconds further; whether there is more to do.

        May run beside `put` in another thread, on another store object of the same data.
        """

    def close(self) -> None:
        """Let go of everything; a second time does nothing."""
