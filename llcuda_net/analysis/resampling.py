"""What other sampling would have given: tokens drawn anew from the candidates that were kept.

Each token is drawn as if all before it were those of the answer. Only candidates that the upstream
told can be drawn, and the one that was taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llcuda_net.storage.records import Logprobs, unpacked

#: The widest list that is drawn from; servers give a hundred at most.
_WIDEST = 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; see `llcuda_kernels.sample`."""

    seed: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float


@dataclass(frozen=True, slots=True)
class Redrawn:
    """One token drawn anew.

    Attributes:
        piece: the number of the piece that the token is in.
        taken, drawn: the token of the answer and the one drawn: its id, its text or bytes, and its
            log-probability, as they are kept.
        candidates: from how many it was drawn.
    """

    piece: int
    taken: list[Any]
    drawn: list[Any]
    candidates: int

    @property
    def differs(self) -> bool:
        """Whether another token was drawn than was taken."""
        return bool(self.taken[:2] != self.drawn[:2])


def resample(answer: Logprobs, how: Sampling) -> tuple[list[Redrawn], int]:
    """Every token that has candidates, drawn anew; and how many have none."""
    import numpy as np

    import llcuda_kernels as kernels

    rows: list[tuple[int, list[Any], list[list[Any]]]] = []
    unknown = 0
    for number, piece in enumerate(answer):
        for token in unpacked(piece):
            candidates = _candidates(token)
            if candidates:
                rows.append((number, token[:3], candidates))
            else:
                unknown += 1
    if not rows:
        return [], unknown
    wide = max(len(candidates) for _, _, candidates in rows)
    values = np.full((len(rows), wide), -np.inf, np.float32)
    for values_row, (_, _, candidates) in zip(values, rows, strict=True):
        values_row[: len(candidates)] = [one[2] for one in candidates]
    found = kernels.sample(
        values,
        seed=how.seed,
        temperature=how.temperature,
        top_k=min(how.top_k, wide),
        top_p=how.top_p,
        min_p=how.min_p,
        backend="cpu",
    )
    return [
        Redrawn(number, taken, candidates[place], len(candidates))
        for (number, taken, candidates), place in zip(rows, found.tokens.tolist(), strict=True)
        if place >= 0
    ], unknown


def _candidates(token: list[Any]) -> list[list[Any]]:
    """Those with a probability, the one that was taken among them."""
    found = [list(one[:3]) for one in (token[3] if len(token) > 3 else [])]
    if found and not any(one[:2] == token[:2] for one in found):
        found.append(list(token[:3]))
    return [one for one in found if one[2] is not None and math.isfinite(one[2])][:_WIDEST]
