"""How sure a model was of what it said: statistics of answers, and their least certain words.

NumPy and llcuda_kernels are imported when something is computed: a server that computes nothing
never has them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llcuda_net.storage.records import Logprobs
from llcuda_net.storage.results.interface import CertaintyStats

if TYPE_CHECKING:
    import numpy as np

#: The share of an answer's words that are marked, and the probability from which none is.
_SHARE, _CERTAIN = 0.1, 0.9
#: What stands for minus infinity where only finite numbers may be.
_LEAST = -3.4e38


def certainty_stats(answers: list[Logprobs], *, compiled: bool = True) -> list[CertaintyStats]:
    """The statistics of each answer, from the log-probabilities beside its pieces.

    Args:
        answers: each as a TokenLog holds it.
        compiled: use the compiled kernel, in one call for all answers. Else the same in NumPy,
            which is ready sooner: loading the kernel takes longer than a few answers do.
    """
    import numpy as np

    tokens = [[token for piece in answer for token in piece or ()] for answer in answers]
    flat = [token for answer in tokens for token in answer]
    wide = max((len(token[3]) for token in flat if len(token) > 3), default=0)
    lists = np.full((len(flat), wide), -np.inf, np.float32)
    for row, token in enumerate(flat):
        top = [candidate[2] for candidate in token[3]] if len(token) > 3 else []
        lists[row, : len(top)] = top
    lists[lists <= _LEAST] = -np.inf
    chosen = np.array([token[2] for token in flat], np.float32)
    chosen[chosen <= _LEAST] = -np.inf
    entropy, surprisal = _statistics(lists, chosen, compiled)
    out, first = [], 0
    for answer in tokens:
        part = slice(first, first + len(answer))
        out.append(_stats(surprisal[part], entropy[part]))
        first += len(answer)
    return out


def _statistics(
    lists: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any], compiled: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if compiled and lists.size:
        from llcuda_kernels import list_statistics, to_host

        found = list_statistics(lists, chosen)
        return to_host(found.entropy), to_host(found.surprisal)
    from llcuda_kernels.reference.tokens import list_statistics as in_numpy

    entropy, _, surprisal = in_numpy(lists, chosen)
    return entropy, surprisal


def _stats(surprisal: np.ndarray[Any, Any], entropy: np.ndarray[Any, Any]) -> CertaintyStats:
    from llcuda_kernels import certainty

    found = certainty(surprisal, entropy)
    return CertaintyStats(
        len(surprisal),
        _finite(found.mean_surprisal),
        _finite(found.perplexity),
        _finite(found.mean_entropy),
        found.least_certain,
        _finite(found.least_certain_surprisal),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- words -------------------------------------------------------------------------------------


def span_text(pieces: Sequence[str], logprobs: Logprobs, span: tuple[int, int]) -> str:
    """The text of the pieces that hold the tokens from the first up to, not with, the second."""
    out, number = "", 0
    for piece, tokens in zip(pieces, logprobs, strict=False):
        behind = number + len(tokens or ())
        if number < span[1] and behind > span[0]:
            out += piece
        number = behind
    return out


def least_certain(pieces: Sequence[str], logprobs: Logprobs) -> list[tuple[int, int]]:
    """The least certain words, as characters of the text from the first up to, not with, the last.

    A word is as certain as the least likely of its tokens. The least certain tenth of the words is
    marked, but none whose tokens all had a probability of 90% or more.
    """
    text = "".join(pieces)
    doubt: list[float] = []  # beside each character
    for piece, tokens in zip(pieces, logprobs, strict=False):
        doubt += [max((-token[2] for token in tokens or ()), default=0.0)] * len(piece)
    doubt += [0.0] * (len(text) - len(doubt))
    words = [match.span() for match in re.finditer(r"\S+", text)]
    worst = {word: max(doubt[word[0] : word[1]]) for word in words}
    ranked = sorted(words, key=lambda word: (-worst[word], word))
    few = ranked[: math.ceil(len(words) * _SHARE)]
    return sorted(word for word in few if worst[word] > -math.log(_CERTAIN))


def shown_stats(stats: CertaintyStats) -> list[tuple[str, str]]:
    """The statistics with their names, for people."""
    return [
        ("mean surprisal", _shown(stats.mean_surprisal, " nats")),
        ("perplexity", _shown(stats.perplexity)),
        ("mean entropy", _shown(stats.mean_entropy, " nats")),
    ]


def _shown(value: float | None, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:.3g}{unit}"
