"""`llcuda results resample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llcuda_net.storage.records import TokenLog, packed
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import Llcuda
from tests.support.storage.records import result

#: The best token was not taken at the second place.
CANDIDATES = [
    [[1, "a", -0.1, [[1, "a", -0.1], [2, "b", -2.5]]]],
    [[3, "c", -1.6, [[4, "d", -0.3], [3, "c", -1.6], [5, "e", None]]]],
    [],
    [[6, "f", -3.0, [[7, "g", -0.1]]]],
    [[8, "h", -0.5]],
]


@pytest.fixture
def stored(directory: Path) -> str:
    log = TokenLog(list("acxfh"), [1, 3, None, 6, 8], [packed(one) for one in CANDIDATES])
    one = result(78, log=log, seed=5)
    store = SqliteStore(directory, write=True)
    store.put([one])
    store.close()
    return one.id


def test_temperature_0_takes_the_best(stored: str, llcuda: Llcuda) -> None:
    done = llcuda("resample", stored, "--temperature", "0")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0] == (
        "at temperature 0, with seed 5: 2 of 3 tokens would have been others (67 %)"
    )
    assert done.lines[1] == "1 token has no candidates kept, and is left out"
    assert done.lines[-2].split() == ["1", "'c'", "'d'", "-1.600", "-0.300"]
    assert done.lines[-1].split() == ["3", "'f'", "'g'", "-3.000", "-0.100"]


def test_json_has_every_token(stored: str, llcuda: Llcuda) -> None:
    (found,) = llcuda("resample", stored, "--temperature", "0", "--json", "--seed", "9").objects
    assert (found["seed"], found["tokens"], found["others"]) == (9, 3, 2)
    assert found["without_candidates"] == 1
    first: dict[str, Any] = found["drawn"][0]
    assert first["taken"] == first["drawn"] == {"id": 1, "text": "a", "logprob": -0.1}
    assert [one["candidates"] for one in found["drawn"]] == [2, 2, 2]


def test_a_seed_gives_the_same_tokens(stored: str, llcuda: Llcuda) -> None:
    def drawn(seed: int) -> list[Any]:
        arguments = ("--temperature", "5", "--top-p", "1", "--min-p", "0", "--seed", str(seed))
        (found,) = llcuda("resample", stored, "--json", *arguments).objects
        return [one["drawn"]["id"] for one in found["drawn"]]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 2


def test_what_is_refused(directory: Path, stored: str, llcuda: Llcuda) -> None:
    bare = result(79, log=TokenLog(["a"], [1]))
    store = SqliteStore(directory, write=True)
    store.put([bare])
    store.close()
    done = llcuda("resample", bare.id, "--temperature", "1")
    assert done.code == 1
    assert "has no candidates beside its tokens: ask for them with --n-probs N" in done.err
    for wrong in (("--temperature", "-1"), ("--temperature", "1", "--top-k", "0")):
        assert llcuda("resample", stored, *wrong).code == 2
