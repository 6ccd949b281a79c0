"""Bytes of numbers or blocks, split into planes without loss, so that they compress better.

What a KV cache holds is blocks of a few fields: a float16 is a byte of sign, exponent and two bits
of mantissa, and one that looks like noise; a block of q8_0 is a scale of two bytes and 32 codes.
Bytes of one kind side by side compress better than mixed ones (the "shuffle" of HDF5 and Blosc:
Alted 2010, doi:10.1109/MCSE.2010.51). Errors as in `elementwise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from .arrays import Array, host
from .runtime import crossover
from .runtime.backend import Backend, use_cuda
from .runtime.boundary import boundary

#: The fields of one block in bytes, by ggml's names of the types (ggml-common.h); little-endian.
PLANE_FIELDS: dict[str, tuple[int, ...]] = {
    "f16": (1, 1),
    "bf16": (1, 1),
    "f32": (1, 1, 1, 1),
    "q8_0": (1, 1, 32),
    "q4_0": (1, 1, 16),
    "q4_1": (1, 1, 1, 1, 16),
    "iq4_nl": (1, 1, 16),
    "q5_0": (1, 1, 4, 16),
    "q5_1": (1, 1, 1, 1, 4, 16),
}
#: The largest block, in bytes, and the most runs of fields of the same width.
MAX_BLOCK, MAX_RUNS = 1024, 4


@boundary("data")
def split_planes(data: Array, fields: str | Sequence[int], *, backend: Backend = "auto") -> Array:
    """The first field of every block, then the second of every block, and so on.

    data: (n,) uint8. fields: the widths in bytes of a block's fields, or a type of `PLANE_FIELDS`:
    ``(1, 1, 32)`` is a block of 34 bytes. Returns (n,) uint8: plane i begins at ``n // size ·
    sum(fields[:i])``; the last ``n % size`` bytes, which are no whole block, stay the last.
    `join_planes` is the inverse.

    Raises ValueError for fields that are none: not at least one, each of at least one byte, of at
    most 1,024 together, and changing their width at most three times.

    >>> split_planes(np.frombuffer(b"aAbBcC.", np.uint8), "f16").tobytes()
    b'abcABC.'
    """
    return _run("split_planes", data, fields, backend)


@boundary("planes")
def join_planes(planes: Array, fields: str | Sequence[int], *, backend: Backend = "auto") -> Array:
    """What `split_planes` was given: (n,) uint8, from its result and the same fields.

    >>> join_planes(np.frombuffer(b"abcABC.", np.uint8), (1, 1)).tobytes()
    b'aAbBcC.'
    """
    return _run("join_planes", planes, fields, backend)


def _run(name: str, data: Array, fields: str | Sequence[int], backend: Backend) -> Array:
    runs = runs_of(fields)
    if len(data.shape) != 1:
        raise ValueError(f"the bytes have {len(data.shape)} dimensions, and must have 1")
    if use_cuda(backend, name, (data,), 2 * int(data.shape[0])):
        from .cuda.planes import launch as cuda

        return cuda.run(name, data, runs)
    from .cpu import planes as cpu

    given = host(data, np.uint8, "the bytes", 1)
    out = np.empty_like(given)
    cpu.run(name, given, runs, out)
    return out


def runs_of(fields: str | Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Fields of the same width that follow each other: how many, and how wide."""
    if isinstance(fields, str):
        if fields not in PLANE_FIELDS:
            known = ", ".join(PLANE_FIELDS)
            raise ValueError(f"fields must be widths or one of {known}, not {fields!r}")
        fields = PLANE_FIELDS[fields]
    widths = [int(width) for width in fields]
    if not widths or min(widths) < 1 or sum(widths) > MAX_BLOCK:
        raise ValueError(
            f"fields must be widths of at least 1 byte and of at most {MAX_BLOCK} together, "
            f"not {widths[:8]}"
        )
    runs = tuple((len(list(same)), width) for width, same in groupby(widths))
    if len(runs) > MAX_RUNS:
        raise ValueError(
            f"fields change their width {len(runs) - 1} times, and may at most 3 times"
        )
    return runs


@crossover.probe("split_planes")
def _probe_split(backend: str, size: int) -> None:
    split_planes(np.zeros(max(1, size // 2), np.uint8), (1, 1), backend=backend)  # type: ignore[arg-type]


@crossover.probe("join_planes")
def _probe_join(backend: str, size: int) -> None:
    join_planes(np.zeros(max(1, size // 2), np.uint8), (1, 1), backend=backend)  # type: ignore[arg-type]
