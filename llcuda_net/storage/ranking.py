"""Okapi BM25, which orders what a full-text search finds, from what FTS5 tells of each match.

As FTS5's own `bm25` (https://www.sqlite.org/fts5.html#the_bm25_function), but that one first counts
the matches of every word in all texts, which takes longer than the search. Here the caller says how
frequent each phrase is.
"""

from __future__ import annotations

import math
from typing import Any

import apsw

#: How soon more occurrences of a phrase count no more, and how much a text's length counts.
_K1, _B = 1.2, 0.75
#: What a phrase weighs at least, which is in more than half of all texts.
_LEAST_WEIGHT = 1e-6


def weight(count: float, of: int) -> float:
    """The inverse document frequency of a phrase that is in so many of the texts."""
    count = min(count, of)
    return max(_LEAST_WEIGHT, math.log((of - count + 0.5) / (count + 0.5)))


def score(api: apsw.FTS5ExtensionApi, *weights: float) -> float:
    """The score of a match, larger is better: a function of FTS5.

    Args:
        weights: of the query's first phrases, in its order; the others do not count.

    The first two columns are texts.
    """
    average: float | None = api.aux_data
    if average is None:
        total = api.column_total_size(0) + api.column_total_size(1)
        average = api.aux_data = max(1.0, total / max(1, api.row_count))
    size = api.column_size(0) + api.column_size(1)
    length = _K1 * (1 - _B + _B * size / average)
    out = 0.0
    for phrase, of_phrase in enumerate(weights):
        count = sum(map(len, api.phrase_locations(phrase)))
        out += of_phrase * ((count * (_K1 + 1)) / (count + length))
    return out


def register(connection: apsw.Connection) -> None:
    """Let statements of a connection call `score`."""

    def called(api: apsw.FTS5ExtensionApi, *weights: Any) -> float:
        return score(api, *weights)

    connection.register_fts5_function("score", called)
