"""One repeat's values of one metric, with the answer that each of them belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llcuda_net.batch.record import METRICS, Record
from llcuda_net.bench.statistics.censored import observations, quantile
from llcuda_net.bench.statistics.estimates import Floats
from llcuda_net.util.quantile import rank


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in order of time.

    Attributes:
        owner: which answer each belongs to, from 0, rising: many of one answer for the gaps between
            its chunks, one for everything else.
        censored: of these only a lower bound is known: the request was cut, or given up.
    """

    values: Floats
    owner: NDArray[np.int64]
    censored: NDArray[np.bool_]

    @property
    def answers(self) -> int:
        """How many answers the values come from."""
        return int(self.owner[-1]) + 1 if len(self.owner) else 0

    @property
    def mean(self) -> float:
        """Of all values; where some are censored, no more than a lower bound."""
        return float(self.values.mean())

    def quantile(self, share: float) -> float | None:
        """The nearest rank (see `util.quantile`), by Kaplan and Meier where some are censored.

        None where those reach so far that it is not known, and of nothing.
        """
        if self.censored.any():
            pairs = zip(self.values.tolist(), self.censored.tolist(), strict=True)
            return quantile(list(pairs), share)
        if not len(self.values):
            return None
        place = rank(len(self.values), share)
        return float(np.partition(self.values, place)[place])

    def halves(self) -> tuple[Sample, Sample]:
        """The first half of its answers, and the second."""
        cut = int(np.searchsorted(self.owner, self.answers // 2))
        owner = self.owner[cut:]
        return (
            Sample(self.values[:cut], self.owner[:cut], self.censored[:cut]),
            Sample(self.values[cut:], owner - owner[:1].sum(), self.censored[cut:]),
        )


def sample(groups: Iterable[Sequence[float]]) -> Sample:
    """Of values by answer, all of them known."""
    return _sample([[(value, False) for value in group] for group in groups])


def of_records(records: Iterable[Record], metric: str) -> Sample:
    """Of requests in order of time: the metric in seconds, of those that were cut, too."""
    get = METRICS[metric][1] if metric in METRICS else None
    found: list[list[tuple[float, bool]]] = []
    for record in records:
        if record.done and get is not None:  # the most frequent case, without detours
            value = get(record)
            if value is not None and value == value:
                found.append([(value, False)])
        else:
            found.append(observations([record], metric))
    return _sample(found)


def pooled(samples: Sequence[Sample]) -> Sample:
    """All of them as one."""
    first, owners = 0, []
    for each in samples:
        owners.append(each.owner + first)
        first += each.answers
    return Sample(
        np.concatenate([each.values for each in samples]),
        np.concatenate(owners),
        np.concatenate([each.censored for each in samples]),
    )


def _sample(groups: Iterable[Sequence[tuple[float, bool]]]) -> Sample:
    full = [group for group in groups if group]
    sizes = np.asarray([len(group) for group in full], dtype=np.int64)
    flat = [each for group in full for each in group]
    return Sample(
        np.asarray([value for value, _ in flat], dtype=np.float64),
        np.repeat(np.arange(len(full), dtype=np.int64), sizes),
        np.asarray([censored for _, censored in flat], dtype=np.bool_),
    )
