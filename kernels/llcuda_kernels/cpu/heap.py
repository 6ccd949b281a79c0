"""A heap of the k best: the worst of them on top, so that a new one is compared with one number.

Of two equal scores the one with the lower index is better. Empty places hold -inf at index -1,
and lose against everything but NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import serial


@serial
def worse(score: Any, index: Any, score2: Any, index2: Any) -> Any:
    """Whether the first is worse than the second."""
    if score != score2:
        return score < score2
    if index < 0:
        return index2 >= 0
    return index2 >= 0 and index > index2


@serial
def _sink(scores: Any, indices: Any, at: Any, end: Any) -> None:
    score, index = scores[at], indices[at]
    while True:
        child = 2 * at + 1
        if child >= end:
            break
        right = child + 1
        if right < end and worse(scores[right], indices[right], scores[child], indices[child]):
            child = right
        if not worse(scores[child], indices[child], score, index):
            break
        scores[at], indices[at] = scores[child], indices[child]
        at = child
    scores[at], indices[at] = score, index


@serial
def clear(scores: Any, indices: Any) -> None:
    """Make it empty."""
    scores[:] = -np.inf
    indices[:] = -1


@serial
def offer(scores: Any, indices: Any, score: Any, index: Any) -> None:
    """Take the score in if it is better than the worst; NaN never is."""
    if worse(scores[0], indices[0], score, index):
        scores[0], indices[0] = score, index
        _sink(scores, indices, 0, scores.size)


@serial
def sort(scores: Any, indices: Any) -> None:
    """Make it a list, best first: the heap is none any more."""
    for end in range(scores.size - 1, 0, -1):
        scores[0], scores[end] = scores[end], scores[0]
        indices[0], indices[end] = indices[end], indices[0]
        _sink(scores, indices, 0, end)


@serial
def merge(scores: Any, indices: Any, out_scores: Any, out_indices: Any) -> None:
    """The best of several heaps, (parts, k) each, as one sorted list of k."""
    clear(out_scores, out_indices)
    for part in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            if indices[part, i] >= 0:
                offer(out_scores, out_indices, scores[part, i], indices[part, i])
    sort(out_scores, out_indices)
