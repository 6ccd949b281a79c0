"""How well a state compresses, and how fast, with its bytes split in several ways."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import llcuda_kernels as k

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
#: Pieces that are compressed apart, of a state whose sections are these.
Way = Callable[[Bytes, list[slice], str], list[Bytes]]


def whole(state: Bytes, at: list[slice], kind: str) -> list[Bytes]:
    """As it is."""
    return [state]


def split_whole(state: Bytes, at: list[slice], kind: str) -> list[Bytes]:
    """Split as one piece, whatever it holds."""
    return [k.split_planes(state, kind, backend="cpu")]


def split_sections(state: Bytes, at: list[slice], kind: str) -> list[Bytes]:
    """Keys and values of each layer split; each field of all of them is one piece."""
    fields = k.PLANE_FIELDS[kind]
    planes = [k.split_planes(state[one], kind, backend="cpu") for one in at]
    pieces, start, size = [], 0, sum(fields)
    for width in fields:
        pieces.append(
            np.concatenate(
                [p[p.size // size * start : p.size // size * (start + width)] for p in planes]
            )
        )
        start += width
    return [*pieces, _rest(state, at)]


def exponents(state: Bytes, at: list[slice], kind: str) -> list[Bytes]:
    """float16: the five bits of the exponent, and the sign with the mantissa, in two bytes."""
    numbers = np.concatenate([state[one] for one in at]).view("<u2")
    rest = (numbers & 0x3FF) | (numbers >> 15 << 10)
    pairs = rest.astype("<u2").view(np.uint8)
    return [
        (numbers >> 10 & 31).astype(np.uint8), k.split_planes(pairs, "f16", backend="cpu"),
        _rest(state, at),
    ]  # fmt: skip


def sign_moved(state: Bytes, at: list[slice], kind: str) -> list[Bytes]:
    """float16: the sign moved to the byte of the mantissa, then split."""
    numbers = np.concatenate([state[one] for one in at]).view("<u2")
    turned = ((numbers << 1) | (numbers >> 15)).astype("<u2").view(np.uint8)
    planes = k.split_planes(turned, "f16", backend="cpu")
    return [*np.split(planes, 2), _rest(state, at)]


def _rest(state: Bytes, at: list[slice]) -> Bytes:
    kept = np.ones(state.size, bool)
    for one in at:
        kept[one] = False
    return state[kept]


#: Of the library that compresses.
ZSTD_VERSION: str = zstd.zstd_version

WAYS: dict[str, Way] = {
    "as it is": whole,
    "split as one piece": split_whole,
    "split by keys and values": split_sections,
}
FINER: dict[str, Way] = {"exponents apart": exponents, "sign to the mantissa": sign_moved}


def spread(times: list[float], size: float) -> dict[str, float]:
    """Bytes a second: of the median time, of the longest and the shortest."""
    return {
        "median": size / statistics.median(times), "least": size / max(times),
        "greatest": size / min(times),
    }  # fmt: skip


def timed(run: Callable[[], Any], repeats: int, size: float) -> dict[str, float]:
    """Bytes a second, after one run that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return spread(times, size)


def compressed(pieces: list[Bytes], size: float, level: int, repeats: int) -> dict[str, Any]:
    """A state of `size` bytes by zstd on one core. Raises AssertionError if it comes back wrong."""
    given = [piece.tobytes() for piece in pieces]
    small = [zstd.compress(piece, level) for piece in given]
    for piece, one in zip(given, small, strict=True):
        assert zstd.decompress(one) == piece
    return {
        "ratio": size / sum(map(len, small)),
        "of_pieces": [round(len(p) / len(one), 3) for p, one in zip(given, small, strict=True)],
        "compress": timed(lambda: [zstd.compress(p, level) for p in given], repeats, size),
        "decompress": timed(lambda: [zstd.decompress(one) for one in small], repeats, size),
    }


def planes(state: Bytes, kind: str, repeats: int) -> dict[str, Any]:
    """Splitting and joining on all cores here, and a copy of as many bytes beside it."""
    found = k.split_planes(state, kind, backend="cpu")
    assert np.array_equal(k.join_planes(found, kind, backend="cpu"), state)
    return {
        "split": timed(lambda: k.split_planes(state, kind, backend="cpu"), repeats, state.size),
        "join": timed(lambda: k.join_planes(found, kind, backend="cpu"), repeats, state.size),
        "copy": timed(state.copy, repeats, state.size),
    }
