"""A part of a search by meaning, as servers of a cluster ask each other: SPEC.md, section 20."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection
from typing import Any

from llcuda_net.analysis.shards import Question
from llcuda_net.analysis.vector_index import Answer
from llcuda_net.config.users import User, view_of
from llcuda_net.errors import InvalidRequest
from llcuda_net.storage.results.buckets import packed, unpacked
from llcuda_protocol import Search

#: Most numbers of deleted results that are named: the rest the one that asks leaves out by itself.
_MOST_GONE = 65_536


def to_ask(question: Question, buckets: int, gone: Collection[int]) -> dict[str, Any]:
    """`peer` of a search."""
    found: dict[str, Any] = {
        "space": question.space,
        "vector": _little(array("f", question.vector)),
        "buckets": packed(buckets),
        "gone": [*gone][:_MOST_GONE],
    }
    return found if question.owner is None else {**found, "owner": question.owner}


def asked(search: Search, user: User) -> tuple[Question, int, list[int]]:
    """What such a search asks for, in which buckets, and what is gone.

    Raises:
        InvalidRequest: it asks for what its user may not see.
    """
    peer = search.peer or {}
    owner = peer.get("owner")
    if view_of(user) not in (None, owner):
        raise InvalidRequest("it searches for results of others, and its user is no admin")
    vector = _read("f", peer["vector"])
    question = Question(peer["space"], vector, search.k, owner)
    return question, unpacked(peer["buckets"]), peer.get("gone") or []


def to_answer(answer: Answer) -> dict[str, Any]:
    """`peer` of the done that answers it."""
    return {
        "buckets": packed(answer.buckets),
        "numbers": _little(array("q", [seq for _, seq in answer.best])),
        "scores": _little(array("f", [score for score, _ in answer.best])),
    }


def answered(peer: dict[str, Any], searched: int) -> Answer:
    """What such an answer says."""
    scores, numbers = _read("f", peer["scores"]), _read("q", peer["numbers"])
    best = list(zip(scores, numbers, strict=False))
    return Answer(best, unpacked(peer["buckets"]), searched)


def _little(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _read(code: str, data: bytes) -> array[Any]:
    values = array(code)
    values.frombytes(data[: len(data) - len(data) % values.itemsize])
    if sys.byteorder == "big":
        values.byteswap()
    return values
