"""Rows: statistics of tokens, softmax, and embeddings to codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import llcuda_kernels as k
from llcuda_kernels.cuda.runtime.array import empty
from tools.kernels_bench.beside.work import Work, call, near
from tools.kernels_bench.clock import normals
from tools.kernels_bench.peers import as_torch, torch

VOCABULARY = 128_256


def _logits(scale: float) -> tuple[Any, int]:
    rows = max(8, int(2048 * scale))
    return normals(rows * VOCABULARY, 5).reshape(rows, VOCABULARY), rows


def tokens(scale: float) -> Iterator[Work]:
    """A vocabulary of 128k, with and without the best tokens."""
    x, rows = _logits(scale)
    tx = as_torch(x)
    chosen = k.to_device(np.random.default_rng(1).integers(0, VOCABULARY, rows))
    tc = as_torch(chosen)[:, None]

    def statistics(x: Any, chosen: Any) -> Any:
        logs = torch.log_softmax(x, dim=-1)
        return -(logs.exp() * logs).sum(-1), -logs.gather(1, chosen)[:, 0]

    def with_best(x: Any, chosen: Any) -> Any:
        return *statistics(x, chosen), *torch.topk(x, 20, dim=-1)

    for best, function in ((0, statistics), (20, with_best)):
        compiled = torch.compile(function)
        yield Work(
            f"token statistics, k = {best}",
            f"{rows} x {VOCABULARY:,}",
            call(k.token_statistics, x, chosen, k=best),
            {"torch.compile": call(compiled, tx, tc), "torch": call(function, tx, tc)},
            bytes=4.0 * rows * VOCABULARY,
            check=lambda ours, theirs: (
                near(ours.entropy, theirs[0]) and near(ours.surprisal, theirs[1])
            ),
        )


def sampling(scale: float) -> Iterator[Work]:
    """A token of each row: of the 40 best 95 %, of these what is 5 % as likely as the best."""
    x, rows = _logits(scale)
    tx = as_torch(x)

    def drawn(x: Any) -> Any:
        best, at = torch.topk(x, 40, dim=-1)
        p = torch.softmax(best, dim=-1)
        kept = (p.cumsum(-1) - p < 0.95) & (p >= 0.05 * p[:, :1])
        p = torch.softmax(torch.where(kept, best / 0.8, -torch.inf), dim=-1)
        return at.gather(1, torch.multinomial(p, 1))[:, 0]

    yield Work(
        "sample, k = 40",
        f"{rows} x {VOCABULARY:,}",
        call(k.sample, x, seed=1),
        {"torch.compile": call(torch.compile(drawn), tx), "torch": call(drawn, tx)},
        bytes=4.0 * rows * VOCABULARY,
    )


def softmax(scale: float) -> Iterator[Work]:
    """Of logits."""
    x, rows = _logits(scale)
    out = empty(x.shape, np.float32)
    tx = as_torch(x)

    def plain(x: Any) -> Any:
        return torch.softmax(x, dim=-1)

    compiled = torch.compile(plain)
    yield Work(
        "softmax",
        f"{rows} x {VOCABULARY:,}",
        call(k.softmax, x, out=out),
        {"torch.compile": call(compiled, tx), "torch": call(plain, tx)},
        bytes=8.0 * rows * VOCABULARY,
        check=near,
    )


def codes(scale: float) -> Iterator[Work]:
    """Embeddings normalised and quantised."""
    rows, dim = max(64, int(65_536 * scale)), 4096
    x = normals(rows * dim, 3).reshape(rows, dim)
    tx = as_torch(x)

    def plain(x: Any) -> Any:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        peak = x.abs().amax(dim=-1, keepdim=True)
        return torch.round(x * (127.0 / peak)).to(torch.int8), (peak / (127.0 * norm))[:, 0]

    compiled = torch.compile(plain)
    yield Work(
        "normalize_quantize",
        f"{rows:,} x {dim:,}",
        call(k.normalize_quantize, x),
        {"torch.compile": call(compiled, tx), "torch": call(plain, tx)},
        bytes=5.0 * rows * dim + 4.0 * rows,
        check=lambda ours, theirs: near(ours[0], theirs[0]) and near(ours[1], theirs[1]),
    )
