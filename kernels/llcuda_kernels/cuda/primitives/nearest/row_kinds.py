"""What rows of int8 codes and rows of floats differ in, where they are multiplied with queries.

A cosine is a dot product times the inverse norms. A dot product of codes is exact; of floats it is
summed as the rows are read, each number times the row's inverse norm, so that no sum is too large
or too small for a float. The same numbers are added in the same order wherever a row is scored, so
that a score is the same in a sample and in a scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from llcuda_kernels.cuda.runtime.intrinsics import dp4a, multiply_add, reciprocal
from llcuda_kernels.cuda.runtime.shim import F32, I32, device

#: The floats between which an inverse norm has all its digits.
LEAST, LARGEST = np.float32(2.0**-126), np.finfo(np.float32).max
#: The first compute capability that has dp4a.
DP4A = (6, 1)
_ZERO = np.float32(0.0)


@dataclass(frozen=True)
class RowKind:
    """Functions for the device, and the type that loads are of.

    Attributes:
        dot: adds the products of one load (four words) to a sum.
        factor: what a row's numbers are multiplied by, from the inverse norms and its place.
        scaled: four words times that.
        cosine: of a dot product, the inverse norms of query and row, all rows, where the row
            begins, and its words.
    """

    type: Any
    zero: Any
    dot: Any
    factor: Any
    scaled: Any
    cosine: Any


@device
def _dot_codes(a: Any, b: Any, total: Any) -> Any:
    """Sixteen products."""
    total = dp4a(a[0], b[0], total)
    total = dp4a(a[1], b[1], total)
    total = dp4a(a[2], b[2], total)
    return dp4a(a[3], b[3], total)


@device
def _dot_codes_plain(a: Any, b: Any, total: Any) -> Any:
    """The same where there is no dp4a (below compute capability 6.1)."""
    for shift in range(0, 32, 8):
        up, down = np.int32(24 - shift), np.int32(24)
        for i in range(4):
            left, right = np.int32(a[i] << up), np.int32(b[i] << up)
            total += np.int32((left >> down) * (right >> down))
    return total


@device
def _dot_floats(a: Any, b: Any, total: Any) -> Any:
    """Four products."""
    total = multiply_add(a[0], b[0], total)
    total = multiply_add(a[1], b[1], total)
    total = multiply_add(a[2], b[2], total)
    return multiply_add(a[3], b[3], total)


@device
def _no_factor(inverse: Any, row: Any) -> Any:
    return np.int32(0)


@device
def _factor(inverse: Any, row: Any) -> Any:
    """What the numbers of a row are multiplied by as they are read: then none is too large or too
    small to be summed.
    """
    return min(inverse[row], LARGEST)


@device
def _as_they_are(v: Any, by: Any) -> Any:
    return v


@device
def _times(v: Any, by: Any) -> Any:
    return v[0] * by, v[1] * by, v[2] * by, v[3] * by


@device
def _whole_cosine(dot: Any, of_query: Any, inverse: Any, rows: Any, at: Any, words: Any) -> Any:
    return np.float32(dot) * of_query * inverse


@device
def _float_cosine(dot: Any, of_query: Any, inverse: Any, rows: Any, at: Any, words: Any) -> Any:
    """A row whose inverse norm a float cannot hold exactly is gone through once more."""
    if inverse > LARGEST or (inverse < LEAST and inverse > _ZERO):
        by, norm = min(inverse, LARGEST), _ZERO
        for i in range(words):
            v = rows[at + i] * by
            norm += v * v
        dot *= reciprocal(math.sqrt(norm))
    return dot * of_query if inverse == inverse else inverse


_WHOLE = _no_factor, _as_they_are, _whole_cosine
CODES = RowKind(I32, np.int32(0), _dot_codes, *_WHOLE)
PLAIN_CODES = RowKind(I32, np.int32(0), _dot_codes_plain, *_WHOLE)
FLOATS = RowKind(F32, _ZERO, _dot_floats, _factor, _times, _float_cosine)
