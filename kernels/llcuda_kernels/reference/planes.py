"""Bytes of blocks, split into planes: all first fields, then all second ones, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def _places(n: int, fields: Sequence[int]) -> np.ndarray[Any, Any]:
    """For each byte of the planes the place that it comes from."""
    size = sum(fields)
    blocks = n // size
    places = np.arange(blocks * size).reshape(blocks, size)
    ends = np.cumsum(fields)
    parts = [
        places[:, end - width : end].reshape(-1) for width, end in zip(fields, ends, strict=True)
    ]
    return np.concatenate([*parts, np.arange(blocks * size, n)])


def split_planes(data: Any, fields: Sequence[int]) -> Bytes:
    """All first fields, all second ones, …, and then what is no whole block."""
    given = np.asarray(data, np.uint8)
    planes: Bytes = given[_places(given.size, fields)]
    return planes


def join_planes(planes: Any, fields: Sequence[int]) -> Bytes:
    """The inverse."""
    given = np.asarray(planes, np.uint8)
    out = np.empty_like(given)
    out[_places(given.size, fields)] = given
    return out
