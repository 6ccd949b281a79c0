"""What two documents are of: what hinders a comparison, and what only explains it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llcuda_net.bench.record.differences import notes, obstacles
from llcuda_net.bench.report import document
from tests.support import bench_records


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = document.read(bench_records.latency(tmp_path_factory.mktemp("r"), "a.json", repeats=2))
    served(found)["model"]["sha256"] = "ab" * 32
    return found


def served(found: dict[str, Any]) -> dict[str, Any]:
    (path,) = found["paths"].values()
    facts: dict[str, Any] = path["about"]["facts"]
    return facts


def test_a_document_is_like_itself(record: dict[str, Any]) -> None:
    assert obstacles(record, record) == []
    assert notes(record, record) == []


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("measurement",), "throughput", "the new one of throughput"),
        (("problems",), ["it stopped"], "the new run was INVALID: it stopped"),
        (("settings", "max_tokens"), 6, "max_tokens differs: 5 and 6"),
        (("sent", "sha256"), "0" * 64, "what is sent differs"),
        (("machine", "processor"), "another", "the machines differ: processor"),
        (("gpus", "devices"), [{"name": "G", "memory_gib": 8, "power_limit_watts": 1}], "the GPUs"),
        (("served", "model", "sha256"), "cd" * 32, "the models differ: sha256"),
    ],
)
def test_obstacles(record: dict[str, Any], where: tuple[str, ...], value: Any, said: str) -> None:
    other = copy.deepcopy(record)
    at: Any = other
    for name in where[:-1]:
        at = served(other) if name == "served" else at[name]
    at[where[-1]] = value
    (found,) = obstacles(record, other)
    assert said in found


def test_what_only_explains(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    served(other)["version"] = "b2"
    served(other)["model"]["sha256"] = None  # it does not say: that is no difference
    other["machine"]["governor"] = "powersave"
    other["source"].update(commit="1" * 40, modified=True)
    assert obstacles(record, other) == []
    assert notes(record, other) == [
        "version differs: null and b2",
        "whether the models are the same file is not known: fake and fake",
        "governor differs: null and powersave",
        "llcuda's commit differs: 000000000000 and 111111111111",
        "the new run was of an llcuda with changes that are in no commit",
    ]
