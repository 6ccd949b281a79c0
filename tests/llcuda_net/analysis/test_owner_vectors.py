"""One owner's vectors come in any order, and twice: the order of their results decides."""

from __future__ import annotations

import numpy as np

from llcuda_net.analysis.owner_vectors import OwnerVectors, best_of
from llcuda_net.storage.results.buckets import ALL

NEAR, FAR = bytes([1, 0, 0, 0]), bytes([0, 1, 0, 0])
QUERY = np.array([1, 0, 0, 0], np.float32)


def test_what_comes_late_takes_its_place() -> None:
    vectors = OwnerVectors(4)
    vectors.add([("", 10, 0.1, NEAR), ("", 20, 0.1, FAR)])
    assert vectors.nearest(QUERY, 2) == [(1.0, 10), (0.0, 20)]
    # 10 was damaged, and is embedded anew: what it was before is not found any more.
    vectors.add([("", 5, 0.1, NEAR), ("", 10, 0.1, FAR), ("", 30, 0.1, NEAR)])
    assert vectors.nearest(QUERY, 9) == [(1.0, 5), (1.0, 30), (0.0, 10), (0.0, 20)]
    assert len(vectors) == 4
    vectors.discard([5, 6])
    vectors.add([("", 31, 0.1, NEAR)])
    assert vectors.nearest(QUERY, 2) == [(1.0, 30), (1.0, 31)]
    part = vectors.merged(None, ALL & ~(1 << 30))
    assert part.nearest(QUERY, 9) == [(1.0, 31), (0.0, 10), (0.0, 20)]
    assert vectors.count(1 << 30 | 1 << 31) == 2


def test_the_best_of_several_has_each_once() -> None:
    found = [(0.5, 9), (0.5, 3), (0.7, 4), (0.5, 3), (0.5, 7)]
    assert best_of(found, 3) == [(0.7, 4), (0.5, 3), (0.5, 7)]
