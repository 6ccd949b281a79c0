"""What orders the matches of a search: it must agree with FTS5's own bm25."""

from __future__ import annotations

import random

import apsw
import pytest

from llcuda_net.storage.ranking import register, weight

WORDS = ["slot", "token", "queue", "kernel", "stream"]


def test_scores_are_those_of_fts5() -> None:
    rng = random.Random(3)
    db = apsw.Connection(":memory:")
    register(db)
    db.execute("CREATE VIRTUAL TABLE t USING fts5 (a, b)")
    texts = [
        [" ".join(rng.choices(WORDS, k=rng.randrange(1, 40))) for _ in "ab"] for _ in range(60)
    ]
    texts += [["other words", ""] for _ in range(140)]
    for text in texts:
        db.execute("INSERT INTO t VALUES (?, ?)", text)
    for phrases in (["slot"], ["slot", "token"], ["slot token", "queue"]):
        match = " AND ".join(f'"{phrase}"' for phrase in phrases)
        counted = [
            db.execute("SELECT count(*) FROM t WHERE t MATCH ?", (f'"{phrase}"',)).get
            for phrase in phrases
        ]
        weights = [weight(n, len(texts)) for n in counted]
        sql = f"SELECT -bm25(t), score(t{', ?' * len(weights)}) FROM t WHERE t MATCH ?"
        found = list(db.execute(sql, (*weights, match)))
        assert len(found) > 3
        for theirs, ours in found:
            assert ours == pytest.approx(theirs)


def test_what_is_everywhere_weighs_next_to_nothing() -> None:
    some = [weight(n, 100) for n in (0, 1, 40, 50, 100)]
    assert some == sorted(some, reverse=True)
    assert some[-1] == some[-2] > 0
    assert weight(150.0, 100) == some[-1]  # an estimate may be above
