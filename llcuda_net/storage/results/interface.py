"""The interface of a result store, and the types that it takes and returns.

`sqlite.SqliteStore` and `postgres.store.PostgresStore` implement it; what both must do is checked
by tests/llcuda_net/storage/results/contract. Every method blocks: call it from a thread, and use
one store object in one thread at a time. An `owner` of None selects everybody's results, an `owner`
of "" those without an owner. Times are wall-clock nanoseconds. Every method may raise StorageError:
by its code the caller knows whether the same may succeed later (`retry`), or never.

Any number of store objects may be open on the same data, in several processes. A result gets a
number, `seq`, when it is stored. Numbers are never used again, and become visible in their order:
who has seen one has seen all smaller ones that there ever will be. A store that was opened to read
changes nothing but what is derived from results: the search index and the analyses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llcuda_net.storage.records import Logprobs, Result
from llcuda_net.storage.results.buckets import ALL
from llcuda_net.storage.words import HIGHLIGHT as HIGHLIGHT

#: The state, in a list, of a result that is not what was stored.
DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class Query:
    """Selects results; every condition that is set must hold.

    Attributes:
        id: the result's id.
        model: the model's name.
        since: created then or later.
        until: created before then.
        states: any of these; empty: every state.
        owner: see the module.
        limit: at most this many; None: all.
        after: continue after the result with this id, in the order of the query.
        ascending: oldest first; else newest first. Only `listed` and `find` know of it.
    """

    id: str | None = None
    model: str | None = None
    since: int | None = None
    until: int | None = None
    states: Collection[str] = ()
    owner: str | None = None
    limit: int | None = 50
    after: str | None = None
    ascending: bool = False


@dataclass(frozen=True)
class Summary:
    """A result in a list.

    Attributes:
        state: in which it ended; or DAMAGED, where only `id` and `created` may be of use.
        tokens: completion tokens.
        preview: the beginning of the prompt, or of the last message.
        size: bytes that it takes in the store, as if it shared no content with others.
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
        prompt: an excerpt of the prompt with HIGHLIGHT around the words; empty without a match.
        text: the same of the generated text.
        of_newest: so many matches, the newest ones, were compared, since there are more; None: all.
    """

    summary: Summary
    score: float
    prompt: str
    text: str
    of_newest: int | None = None


@dataclass(frozen=True)
class CertaintyStats:
    """How certain the model was of a result, in nats. None: not a finite number.

    Attributes:
        tokens: tokens with a log-probability.
        mean_surprisal: mean of -log p of the sampled tokens.
        perplexity: exp(mean_surprisal).
        mean_entropy: of the distributions that they were sampled from, as far as known.
        least_certain: the run of tokens with the greatest mean surprisal, as a half-open range.
        span_surprisal: that mean.
        unknown: tokens whose log-probability is not known; they are left out. The store does not
            have this.
    """

    tokens: int
    mean_surprisal: float | None
    perplexity: float | None
    mean_entropy: float | None
    least_certain: tuple[int, int]
    span_surprisal: float | None
    unknown: int = 0


@dataclass(frozen=True)
class Space:
    """Embeddings that can be compared with each other: of one model, dimension and recipe.

    Attributes:
        model: the model's fingerprint.
        recipe: which texts are embedded, and how they are combined.
        seq: the space holds the results up to this number.
    """

    id: int
    model: dict[str, Any]
    dim: int
    recipe: int
    seq: int


@dataclass(frozen=True)
class Document:
    """The texts of a result: the question and the generated answer; and the result's owner."""

    seq: int
    owner: str
    question: str
    answer: str


@dataclass(frozen=True)
class Embedding:
    """A result's embedding.

    Attributes:
        id: grows with every embedding that is added.
        codes: one int8 per dimension; multiplied by `scale` they are a vector of length 1.
    """

    id: int
    seq: int
    owner: str
    scale: float
    codes: bytes


@dataclass(frozen=True)
class Problem:
    """Something that differs from what was stored; `id` is a result's, or empty."""

    id: str
    message: str


@dataclass(frozen=True)
class Deleted:
    """A result that was deleted: whose it was, and its idempotency key."""

    owner: str
    key: str | None


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What to delete: results of a certain age, and then the oldest until the rest fits.

    Attributes:
        before: delete results created before this time.
        max_bytes: keep at most this many bytes.
        owner: see the module.
    """

    before: int | None = None
    max_bytes: int | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a prune would delete: results, their bytes, and when the newest one was created."""

    results: int = 0
    bytes: int = 0
    newest: int | None = None


@dataclass(frozen=True)
class Step:
    """What one step of a prune deleted, and how many seconds it blocked other writers.

    Attributes:
        damaged: results that it left, since it cannot be known how old they are.
    """

    results: int
    bytes: int
    blocked: float
    damaged: int = 0


@dataclass
class Stats:
    """Statistics of a store.

    Attributes:
        bytes: size of the store's files together.
        tokens: generated tokens of all days; `prompt_tokens` likewise.
        days: results and tokens ever stored per day, model and state, pruned ones included.
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
    """Statistics of one day (UTC, as 2026-01-31), model and state."""

    day: str
    model: str
    state: str
    results: int
    tokens: int
    prompt_tokens: int


#: Statistics of log-probabilities, for each of several results.
Compute = Callable[[list[Logprobs]], list[CertaintyStats]]


class Analyses(Protocol):
    """What is computed from finished results, in the order in which they were stored.

    A result's number, `seq`, is never reused. Pruning a result deletes its analysis.
    """

    def compute_certainty(self, compute: Compute) -> bool:
        """Compute the statistics of a few results without any; whether there may be more."""

    def certainty(self, result: str) -> CertaintyStats | None:
        """A result's statistics, by its id; None: not computed, or it has no log-probabilities."""

    def spaces(self) -> list[Space]:
        """All spaces, newest first."""

    def open_space(self, model: dict[str, Any], dim: int, recipe: int, seq: int = 0) -> Space:
        """Add an empty space."""

    def update_model(self, space: Space, model: dict[str, Any]) -> None:
        """Replace the fingerprint of a space's model by a more complete one."""

    def unembedded(self, after: int, limit: int, space: int = 0) -> list[Document]:
        """The first results after this number, or those whose embedding in `space` was lost."""

    def embed(self, space: int, upto: int, rows: Sequence[tuple[int, float, bytes]]) -> None:
        """Add embeddings (seq, scale, codes) and move the space to `upto`, in one transaction."""

    def embeddings(
        self,
        space: int,
        after: int = 0,
        *,
        upto: int | None = None,
        buckets: int = ALL,
        owner: str | None = None,
    ) -> Iterator[list[Embedding]]:
        """Embeddings of a space whose results exist, in the order they were added.

        Args:
            after: only those that were added after the one with this id, by whoever it was.
            upto: none that were added after the one with this id.
            buckets: only of results in these: see buckets.py.
            owner: only of this owner's results.

        Damaged ones are left out, and `unembedded` gives their results again.
        """

    def count(self, space: int) -> int:
        """How many embeddings a space has."""

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        """Existing results that are not damaged, by number, with the beginning of their text."""

    def lag(self, seq: int, owner: str | None = None) -> int:
        """How many results of an owner come after this number."""

    def numbers(self, ids: Collection[str]) -> dict[str, int]:
        """The numbers of those of these results that there are, by id."""

    def numbered(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Numbers and ids of the next results after this number, in the order of the numbers."""

    def certainty_seq(self) -> int:
        """The number up to which certainty is computed."""


class Store(Protocol):
    """Results, by id."""

    @property
    def analyses(self) -> Analyses:
        """What was computed from them."""

    def put(self, results: Sequence[Result]) -> None:
        """Store results, all or none; they are on the disk when it returns.

        A result whose id is already stored is left as it is, unless what is stored is damaged.
        """

    def reached(self) -> int:
        """How many results were ever committed: pruning takes nothing from it, loss does."""

    def names(self) -> list[str]:
        """What this store is called. Two that have a name in common are meant to be one."""

    def missing(self, ids: Collection[str]) -> set[str]:
        """The ids among these that no stored result has, unless it is damaged."""

    def states(self, ids: Collection[str], owner: str | None = None) -> dict[str, str]:
        """The states of those results among these that there are, by id; nothing else is read."""

    def get(self, result: str, owner: str | None = None) -> Result | None:
        """A whole result, by its id.

        This and every method below raises StorageError with the code DAMAGED where what is stored
        is not what was written.
        """

    def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with an idempotency key of this owner."""

    def find_cached(
        self, model: dict[str, object], request_hash: bytes, owner: str | None = None
    ) -> Result | None:
        """The newest cacheable result of this request to a model with exactly this fingerprint.

        Damaged ones are passed over.
        """

    def find(self, query: Query) -> list[Summary]:
        """Results, newest first; damaged ones too, with the state DAMAGED."""

    def walk(self, query: Query, words: str | None = None) -> Iterator[Summary]:
        """All results of a query, newest first, whatever its limit; never blocks a writer.

        Args:
            words: only results with these words, as `search` takes them.
        """

    def listed(self, query: Query) -> list[tuple[Summary, str]]:
        """As `find`, each with the beginning of its text."""

    def search(self, words: str, query: Query) -> list[Hit]:
        """Results with all these words in the prompt or the text, best first.

        A "quoted phrase" matches as a whole, word* matches a prefix, and OR between words matches
        either; nothing else is special. `query.after` is ignored. Where very many match, only the
        newest ones are compared, unless `query.limit` is None.
        """

    def unindexed(self, owner: str | None = None) -> int:
        """How many results `search` does not find yet."""

    def export(self, query: Query, problems: list[Problem] | None = None) -> Iterator[Result]:
        """Whole results, oldest first; never blocks a writer.

        Args:
            problems: takes those that are damaged, which are passed over. Without it the first one
                is an error.
        """

    def verify(self) -> Iterator[Problem | None]:
        """Recompute every content hash: yields a problem, or None for a content that is intact."""

    def delete(self, result: str, owner: str | None = None) -> Deleted | None:
        """Delete a result and all that was computed from it; None: there was none."""

    def plan(self, retention: Retention) -> Plan:
        """What `prune` would delete now."""

    def prune(self, retention: Retention) -> Iterator[Step]:
        """Delete, one short transaction each time the iterator is advanced."""

    def stats(self, owner: str | None = None) -> Stats:
        """Statistics of the stored results."""

    def checkpoint(self) -> None:
        """Do the work that `put` leaves for after the acknowledgement, in the same thread."""

    def update_index(self) -> bool:
        """Update search and statistics for some milliseconds; whether there is more to do.

        May run beside `put` in another thread, on another store object of the same data.
        """

    def close(self) -> None:
        """Release everything; idempotent."""
