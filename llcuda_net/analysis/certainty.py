"""How sure a model was of what it said: statistics of answers, and their least certain words.

NumPy and llcuda_kernels are imported when something is computed: a server that computes nothing
never has them.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llcuda_net.storage.records import Logprobs, unpacked
from llcuda_net.storage.results.interface import CertaintyStats

if TYPE_CHECKING:
    import numpy as np

#: The share of an answer's words that are marked, and the probability from which none is.
_SHARE, _CERTAIN = 0.1, 0.9
#: What stands for minus infinity where only finite numbers may be.
_LEAST = -3.4e38
#: Most log-probabilities that are computed with at once: 16 MiB of them.
_CELLS = 4 << 20


def certainty_stats(answers: Iterable[Logprobs], *, compiled: bool = True) -> list[CertaintyStats]:
    """The statistics of each answer, from the log-probabilities beside its pieces.

    What is not known is left out, and counted. Pieces are decoded one at a time.

    Args:
        answers: each as a TokenLog holds it.
        compiled: use the compiled kernel, in few calls for all answers. Else the same in NumPy,
            which is ready sooner: loading the kernel takes longer than a few answers do.
    """
    import numpy as np

    tables = _Tables(compiled)
    lengths = []
    for answer in answers:
        before = tables.rows
        for piece in answer:
            for token in unpacked(piece):
                tables.add(token)
        lengths.append(tables.rows - before)
    entropy, surprisal = tables.statistics()
    ends = np.cumsum(lengths)
    return [
        _stats(surprisal[end - length : end], entropy[end - length : end])
        for length, end in zip(lengths, ends, strict=True)
    ]


class _Tables:
    """Tokens with their candidates, as tables of bounded size for the kernel."""

    def __init__(self, compiled: bool) -> None:
        self.rows = 0
        self._compiled = compiled
        self._chosen = array("f")
        self._tops: list[array[float]] = []
        self._wide = 0
        self._done: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []

    def add(self, token: list[Any]) -> None:
        """Add one; see Logprobs."""
        top = array("f", [c[2] for c in token[3] if c[2] is not None] if len(token) > 3 else [])
        wide = max(self._wide, len(top))
        if self._tops and (len(self._tops) + 1) * wide > _CELLS:
            self._compute()
            wide = len(top)
        self._wide = wide
        self._tops.append(top)
        self._chosen.append(math.nan if token[2] is None else token[2])
        self.rows += 1

    def _compute(self) -> None:
        import numpy as np

        lists = np.full((len(self._tops), self._wide), -np.inf, np.float32)
        for row, top in enumerate(self._tops):
            lists[row, : len(top)] = top
        lists[lists <= _LEAST] = -np.inf
        chosen = np.array(self._chosen, np.float32)
        chosen[chosen <= _LEAST] = -np.inf
        self._done.append(_statistics(lists, chosen, self._compiled))
        self._chosen, self._tops, self._wide = array("f"), [], 0

    def statistics(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The entropy and the surprisal of every token that was added."""
        import numpy as np

        if self._tops or not self._done:
            self._compute()
        entropy, surprisal = zip(*self._done, strict=True)
        return np.concatenate(entropy), np.concatenate(surprisal)


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
    import numpy as np

    from llcuda_kernels import certainty

    unknown = int(np.isnan(surprisal).sum())
    # A run of tokens that are not known is no run of certain ones.
    if unknown == len(surprisal):
        return CertaintyStats(0, None, None, None, (0, 0), None, unknown)
    found = certainty(surprisal, entropy)
    return CertaintyStats(
        len(surprisal) - unknown,
        _finite(found.mean_surprisal),
        _finite(found.perplexity),
        _finite(found.mean_entropy),
        found.least_certain,
        _finite(found.least_certain_surprisal),
        unknown,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- words -------------------------------------------------------------------------------------


def span_text(pieces: Sequence[str], logprobs: Logprobs, span: tuple[int, int]) -> str:
    """The text of the pieces that hold the tokens from the first up to, not with, the second."""
    out, number = "", 0
    for piece, tokens in zip(pieces, logprobs, strict=False):
        behind = number + len(unpacked(tokens))
        if number < span[1] and behind > span[0]:
            out += piece
        number = behind
    return out


def least_certain(pieces: Sequence[str], logprobs: Logprobs) -> list[tuple[int, int]]:
    """The least certain words, as characters of the text from the first up to, not with, the last.

    A word is as certain as the least likely of its tokens. The least certain tenth of the words is
    marked, but none whose tokens all had a probability of 90% or more, or one that is not known.
    """
    text = "".join(pieces)
    doubt: list[float] = []  # beside each character
    for piece, tokens in zip(pieces, logprobs, strict=False):
        known = [-token[2] for token in unpacked(tokens) if token[2] is not None]
        doubt += [max(known, default=0.0)] * len(piece)
    doubt += [0.0] * (len(text) - len(doubt))
    words = [match.span() for match in re.finditer(r"\S+", text)]
    worst = {word: max(doubt[word[0] : word[1]]) for word in words}
    ranked = sorted(words, key=lambda word: (-worst[word], word))
    few = ranked[: math.ceil(len(words) * _SHARE)]
    return sorted(word for word in few if worst[word] > -math.log(_CERTAIN))


def shown_stats(stats: CertaintyStats) -> list[tuple[str, str]]:
    """The statistics with their names, for people."""
    shown = [
        ("mean surprisal", _shown(stats.mean_surprisal, " nats")),
        ("perplexity", _shown(stats.perplexity)),
        ("mean entropy", _shown(stats.mean_entropy, " nats")),
    ]
    if stats.unknown:
        of = stats.tokens + stats.unknown
        shown.append(("not known", f"of {stats.unknown:,} of {of:,} tokens, which are left out"))
    return shown


def unknown_tokens(logprobs: Logprobs) -> int:
    """How many tokens have a log-probability that is not known."""
    return sum(token[2] is None for piece in logprobs for token in unpacked(piece))


def _shown(value: float | None, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:.3g}{unit}"
