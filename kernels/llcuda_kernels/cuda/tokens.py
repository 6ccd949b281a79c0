"""Token statistics on the device: a row is read once.

Each thread keeps, of the numbers that it has seen, the greatest m, the sum s of ``2^d`` and the sum
t of ``2^d · d``, with ``d = (x - m) / ln 2``; when a greater one comes, s and t are scaled. Threads
and then blocks are put together in the same way (Milakov and Gimelshein 2018, arXiv:1805.02867,
with t added), so that a row may be split over blocks where rows are few. Then

    log_sum_exp = m + ln s        entropy = ln s - ln 2 · t / s

For the k greatest a block notes what each thread found greatest in each part of the row, and then
reads again the little that can hold them (`token_topk`); from k = 129 on they are found in the
pass, as in `topk`. Many short rows are a warp's each (`token_rows`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llcuda_kernels.arrays import Array

from .primitives import token_rows
from .primitives.online_sums import LOWEST, add4, add_one, greatest4, scaled
from .primitives.reductions import block_max, block_sum, warp_max, warp_max_int, warp_sum
from .primitives.token_topk import (
    CELLS,
    STEP,
    THREADS,
    merge_shares,
    offer_step,
    sixteen,
    take_greatest,
)
from .primitives.topk import NOTHING, clear, in_use, sort_descending
from .runtime import shim
from .runtime.array import Call, DeviceArray, aligned, empty
from .runtime.intrinsics import greater, lane
from .runtime.kernel import Kernel, divide_up, kernel
from .runtime.shim import F32, I32, I64, cuda, pointer

SMALL_K = 128
#: Longer rows are a block's each, or more than one's; with many of the greatest, half as long ones.
SHORT = 8192
_CELLS = (CELLS + 1) * THREADS
_LN2 = np.float32(math.log(2))
_ZERO, _NAN = np.float32(0.0), np.float32(np.nan)
_INF = np.float32(np.inf)


def _statistics(name: str, top: str, buffer: int) -> Kernel:
    """The first kernel. top: "" for none of the k greatest; "cells" finds them by `take_greatest`;
    "keys" finds them in the pass, which is slower, for k above `SMALL_K`.
    """
    bounds = (THREADS, 2 if top == "keys" else 4 if top == "cells" else 5)
    keep_keys, keep_cells = top == "keys", top == "cells"
    shared = 33168 if keep_keys else 29120 if keep_cells else 384

    @kernel(
        name, pointer(F32), I64, I32, I32, I32, pointer(F32), pointer(I64), pointer(F32),
        pointer(I32), bounds=bounds, shared=shared,
    )  # fmt: skip
    def run(
        x: Any, n: Any, share: Any, vectors: Any, k: Any, parts: Any, out: Any,
        values: Any, indices: Any,
    ) -> None:  # fmt: skip
        """Block (r, i): the i-th share of row r. parts: (rows, blocks, 3); out: (.., k) keys."""
        t = np.int32(cuda.threadIdx.x)
        row = np.int64(cuda.blockIdx.x)
        base = row * n
        first = np.int64(cuda.blockIdx.y) * share
        last = min(first + share, n)
        place = row * cuda.gridDim.y + cuda.blockIdx.y
        m, s, u = LOWEST, _ZERO, _ZERO
        if keep_keys:
            keys = cuda.shared.array(buffer, I64)
            counts = cuda.shared.array(2, I32)
            limits = cuda.shared.array(1, I64)
            clear(keys, buffer, THREADS)
            if t == 0:
                counts[0] = 0
                limits[0] = NOTHING
            cuda.syncthreads()
        if keep_cells:
            cells = cuda.shared.array(_CELLS, F32)
            near = cuda.shared.array(THREADS, F32, 16)
            shift = np.int32(0)  # a cell is a power of two of steps
            while np.int64(np.int64(CELLS * STEP) << shift) < last - first:
                shift = np.int32(shift + np.int32(1))
            per = np.int32(np.int32(1) << shift)
            cell, step, used = LOWEST, np.int32(0), np.int32(0)
        at = first
        while at + STEP <= last:
            a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = sixteen(
                x, base + at, vectors
            )
            best = greater(
                greater(greatest4(a0, a1, a2, a3), greatest4(b0, b1, b2, b3)),
                greater(greatest4(c0, c1, c2, c3), greatest4(d0, d1, d2, d3)),
            )
            if best > m:
                s, u = scaled(s, u, m, best)
                m = best
            s, u = add4(s, u, m, a0, a1, a2, a3)
            s, u = add4(s, u, m, b0, b1, b2, b3)
            s, u = add4(s, u, m, c0, c1, c2, c3)
            s, u = add4(s, u, m, d0, d1, d2, d3)
            if keep_keys:
                offer_step(x, base, at, at + STEP, keys, counts, limits, k, buffer)
            if keep_cells:
                cell = greater(cell, best)
                step += np.int32(1)
                if step == per:
                    cells[used * THREADS + t] = cell
                    cell, step, used = LOWEST, np.int32(0), used + np.int32(1)
            at += STEP
        if keep_cells:
            cells[used * THREADS + t] = cell
            cell = LOWEST
        for i in range(at + t, last, THREADS):
            v = x[base + i]
            if v > m:
                s, u = scaled(s, u, m, v)
                m = v
            s, u = add_one(s, u, m, v)
            if keep_cells:
                cell = greater(cell, v)
        if keep_keys:
            offer_step(x, base, at, last, keys, counts, limits, k, buffer)
        all_m = block_max(m, THREADS)
        s, u = scaled(s, u, m, all_m)
        s = block_sum(s, THREADS)
        u = block_sum(u, THREADS)
        if t == 0:
            parts[3 * place] = all_m
            parts[3 * place + 1] = s
            parts[3 * place + 2] = u
        if keep_keys:
            sort_descending(keys, 0, in_use(counts[0], buffer), THREADS)
            for i in range(t, k, THREADS):
                out[place * k + i] = keys[i]
        if keep_cells:
            near[t] = m
            cuda.syncthreads()
            take_greatest(
                x, base, first, last, vectors, k, m, near, cells, shift, cell,
                place, out, values, indices,
            )  # fmt: skip

    return run


PLAIN = _statistics("token_statistics", "", 256)
TOP = _statistics("token_statistics_topk", "cells", 256)
TOP_LARGE = _statistics("token_statistics_topk_large", "keys", 4096)


@kernel(
    "token_statistics_merge",
    pointer(F32), I64, pointer(F32), I32, pointer(I64), I32,
    pointer(F32), pointer(F32), pointer(F32), pointer(F32), I64, bounds=THREADS,
)  # fmt: skip
def _merge(
    x: Any, n: Any, parts: Any, blocks: Any, chosen: Any, have: Any,
    lse: Any, entropy: Any, perplexity: Any, surprisal: Any, rows: Any,
) -> None:  # fmt: skip
    """A warp a row: put the shares together."""
    row = np.int64(cuda.blockIdx.x) * 8 + (cuda.threadIdx.x >> 5)
    if row >= rows:
        return
    m, s, u = LOWEST, _ZERO, _ZERO
    unknown = np.int32(0)
    for i in range(lane(), blocks, 32):
        at = 3 * (row * blocks + i)
        pm, ps, pu = parts[at], parts[at + 1], parts[at + 2]
        if pm > m:
            s, u = scaled(s, u, m, pm)
            m = pm
        ps, pu = scaled(ps, pu, pm, m)
        s += ps
        u += pu
    top = warp_max(m)
    s, u = scaled(s, u, m, top)
    s, u = warp_sum(s), warp_sum(u)
    # The sums of a row with +inf are NaN, too: only its numbers tell it from one with NaN.
    if top == _INF:
        for i in range(lane(), n, 32):
            v = x[row * n + i]
            if v != v:
                unknown = np.int32(1)
        unknown = warp_max_int(unknown)
    if lane() == 0:
        total = math.log(s) if s > _ZERO else _NAN
        value = top + total
        h = total - _LN2 * u / s
        h = _ZERO if h < _ZERO else h
        if top == _INF:
            value = _INF if unknown == 0 else _NAN
            h = _NAN
        elif s == _ZERO:
            value = -_INF
            h = _NAN
        lse[row] = value
        entropy[row] = h
        perplexity[row] = math.exp(h)
        at = chosen[row] if have != 0 else np.int64(-1)
        surprisal[row] = value - x[row * n + at] if at >= 0 and at < n else _NAN


@kernel(
    "list_statistics",
    pointer(F32), pointer(F32), I32, I64, pointer(F32), pointer(F32), pointer(F32), bounds=THREADS,
)  # fmt: skip
def _lists(
    x: Any, chosen: Any, n: Any, rows: Any, entropy: Any, perplexity: Any, surprisal: Any
) -> None:
    """A warp a list."""
    row = np.int64(cuda.blockIdx.x) * 8 + (cuda.threadIdx.x >> 5)
    if row >= rows:
        return
    mass, h, seen = _ZERO, _ZERO, _ZERO
    for i in range(lane(), n, 32):
        v = x[row * n + i]
        p = math.exp(v)
        mass += p
        h -= p * v if p > _ZERO else (v - v if v != v else _ZERO)
        seen += np.float32(1.0) if v != -_INF else _ZERO
    mass, h, seen = warp_sum(mass), warp_sum(h), warp_sum(seen)
    if lane() == 0:
        rest = np.float32(1.0) - mass
        if rest > _ZERO:
            h -= rest * math.log(rest)
        if seen == _ZERO or not (mass < _INF):
            h = _NAN
        entropy[row] = h
        perplexity[row] = math.exp(h)
        surprisal[row] = -chosen[row]


def _by_warps(rows: int, n: int, k: int) -> bool:
    """Whether rows are short and many enough that each is one warp's, and its cells tell of k."""
    enough = 16 if shim.SIMULATED else 8 * _multiprocessors()
    few = k <= token_rows.BY_LANES
    told = few or k <= 16 * (n // token_rows.STEP)
    return rows >= enough and n <= (SHORT if few else SHORT // 2) and k <= SMALL_K and told


def _multiprocessors() -> int:
    from .runtime import driver

    return driver.multiprocessors()


def _shares(rows: int, n: int) -> tuple[int, int]:
    """Into how many blocks a row is split, and how many numbers each gets."""
    wanted = 2 if shim.SIMULATED else divide_up(_multiprocessors() * 6, max(1, rows))
    blocks = max(1, min(wanted, n // (2 * STEP)))
    share = divide_up(divide_up(max(n, 1), blocks), STEP) * STEP
    return divide_up(max(n, 1), share), share


def token_statistics(values: Array, chosen: Array | None, k: int) -> tuple[Any, ...]:
    """See `llcuda_kernels.token_statistics`."""
    call = Call(values, chosen)
    x = call.take(values, np.float32, "values", 2)
    rows = x.shape[0]
    have = chosen is not None
    picked = x if chosen is None else call.take(chosen, np.int64, "chosen", 1)
    if picked is not x and picked.shape[0] != rows:
        raise ValueError(f"chosen has {picked.shape[0]} entries for {rows} rows")
    found = [empty((rows,), np.float32) for _ in range(4)]
    top = empty((rows, k), np.float32), empty((rows, k), np.int32)
    if rows:
        _launch(x, picked, have, k, found, top)
    return tuple(call.give(part) for part in (*found, *top))


def _launch(x: DeviceArray, picked: DeviceArray, have: bool, k: int, found: Any, top: Any) -> None:
    rows, n = x.shape
    fit = aligned(x) and n % 4 == 0
    short = _by_warps(rows, n, k)
    blocks, share = (1, n) if short else _shares(rows, n)
    parts = empty((rows, blocks, 3), np.float32)
    quick = 0 < k <= SMALL_K
    keys = empty((rows, blocks, k), np.int64) if k and (blocks > 1 or not quick) else parts
    best = top[0].address, top[1].address
    if short:
        by_warps = token_rows.TOP if k else token_rows.PLAIN
        grid = divide_up(rows, token_rows.WARPS)
        by_warps.launch(grid, THREADS, x.address, rows, n, fit, k, parts.address, *best)
    else:
        first = PLAIN if not k else TOP if quick else TOP_LARGE
        first.launch(
            (rows, blocks), THREADS, x.address, n, share, fit, k, parts.address, keys.address,
            *best,
        )  # fmt: skip
    index = picked.address
    if not have:
        index = empty((1,), np.int64).address
    _merge.launch(
        divide_up(rows, 8), THREADS, x.address, n, parts.address, blocks, index, have,
        *(part.address for part in found), rows,
    )  # fmt: skip
    if k and not (quick and blocks == 1):
        merge_shares.launch(
            rows, THREADS, keys.address, blocks * k, k, top[0].address, top[1].address
        )


def list_statistics(logprobs: Array, chosen_logprob: Array) -> tuple[Any, ...]:
    """See `llcuda_kernels.list_statistics`."""
    call = Call(logprobs, chosen_logprob)
    x = call.take(logprobs, np.float32, "logprobs", 2)
    picked = call.take(chosen_logprob, np.float32, "chosen_logprob", 1)
    rows, n = x.shape
    found = [empty((rows,), np.float32) for _ in range(3)]
    if rows:
        _lists.launch(
            divide_up(rows, 8), THREADS, x.address, picked.address, n, rows,
            *(part.address for part in found),
        )  # fmt: skip
    return tuple(call.give(part) for part in found)
