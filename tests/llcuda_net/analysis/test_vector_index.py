"""Search in memory: exact, each owner's apart, and over all of them where that is asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.analysis.vector_index import VectorIndex, quantised
from llcuda_net.storage.results.interface import Summary

DIM = 4


class There:
    """Stands for the store: it has the results with these numbers."""

    def __init__(self, owners: dict[int, str]) -> None:
        self.owners = owners
        self.asked: list[list[int]] = []

    def summaries(self, seqs: Collection[int]) -> dict[int, tuple[Summary, str]]:
        self.asked.append(list(seqs))
        return {
            seq: (
                Summary(str(seq), 0, 0, "done", "m", self.owners[seq], 1, 1, 1, ""),
                f"text {seq}",
            )
            for seq in seqs
            if seq in self.owners
        }


def vectors(count: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def near_of(owners: list[str], found: np.ndarray[Any, Any], step: int = 3) -> VectorIndex:
    near = VectorIndex(DIM)
    rows = [
        (owner, seq, *codes)
        for seq, (owner, codes) in enumerate(zip(owners, quantised(found), strict=True), 1)
        if codes is not None
    ]
    for start in range(0, len(rows), step):
        near.add(rows[start : start + step])
    return near


def by_hand(
    owners: list[str], found: np.ndarray[Any, Any], query: list[float], owner: str | None
) -> list[int]:
    """Numbers, nearest first, by the codes as they are kept."""
    codes = np.array([np.frombuffer(row[1], np.int8) for row in quantised(found) if row], float)
    asked = np.frombuffer((quantised(np.array([query], np.float32))[0] or (0, b""))[1], np.int8)
    lengths = np.linalg.norm(codes, axis=1) * np.linalg.norm(asked.astype(float))
    scores = codes @ asked / lengths
    order = sorted(range(len(owners)), key=lambda i: (-np.float32(scores[i]), i))
    return [i + 1 for i in order if owner in (None, owners[i])]


@settings(max_examples=60, deadline=None, derandomize=True)  # no near ties by chance
@given(
    st.lists(st.sampled_from(["", "ann", "bob", "cid"]), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.integers(1, 12),
)
def test_the_best_of_one_or_of_all(owners: list[str], seed: int, k: int) -> None:
    found, query = vectors(len(owners), seed), vectors(1, seed + 5000)[0].tolist()
    near, there = near_of(owners, found), There(dict(enumerate(owners, 1)))
    for owner in (None, "", "ann", "dora"):
        hits = near.search(query, k, there, owner)  # type: ignore[arg-type]
        assert [int(hit[0].id) for hit in hits] == by_hand(owners, found, query, owner)[:k]
        assert all(owner in (None, summary.owner) for summary, _, _ in hits)
        assert [score for _, _, score in hits] == sorted((h[2] for h in hits), reverse=True)
        assert near.count(owner) == sum(owner in (None, one) for one in owners)
        assert len(there.asked.pop()) <= k


@pytest.mark.parametrize("owner", [None, "ann"])
def test_what_is_gone_makes_room_for_the_next(owner: str | None) -> None:
    owners = ["ann", "bob"] * 10
    found = vectors(20, 7)
    query = found[3].tolist()
    order = by_hand(owners, found, query, owner)
    near = near_of(owners, found)
    gone = set(order[:4])
    there = There({seq: o for seq, o in enumerate(owners, 1) if seq not in gone})
    for _ in range(2):
        hits = near.search(query, 3, there, owner)  # type: ignore[arg-type]
        assert [int(hit[0].id) for hit in hits] == order[4:7]
    # The second time nothing is found that is not there.
    assert there.asked[-1] == order[4:7]
    assert not gone & set(there.asked[-1])


def test_rows_of_another_length_are_passed_over() -> None:
    near = VectorIndex(DIM)
    near.add([("ann", 1, 1.0, b"abc"), ("ann", 2, 1.0, b"abcd"), ("bob", 3, 1.0, b"")])
    assert (near.count(None), near.count("ann"), near.count("bob")) == (1, 1, 0)
