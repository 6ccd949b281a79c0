"""Better, worse, or cannot tell: never a verdict that two runs of the same could give."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llcuda_net.bench.report import document
from llcuda_net.bench.statistics import compare
from llcuda_net.errors import ConfigError


def made(**repetitions: list[float]) -> dict[str, Any]:
    given = ["--rate", "5", "--direct=http://me:s3cret@host:1/x"]
    found = document.begin("tools/x.py", given, 1, {"rate": 5.0})
    assert found["command"] == ["tools/x.py", "--rate", "5", "--direct=http://host:1/x"]
    found["repetitions"] = repetitions
    return found


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [change.verdict for change in compare.compare(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([10.0, 10.1, 9.9], [20.0, 20.1, 19.9], "worse"),
        ([20.0, 20.1, 19.9], [10.0, 10.1, 9.9], "better"),
        ([10.0, 10.1, 9.9], [10.02, 10.12, 9.92], "cannot tell"),
        ([10.0, 14.0, 6.0], [12.0, 16.0, 8.0], "cannot tell"),
        ([10.0], [20.0], "cannot tell"),
        ([10.0, 10.0], [20.0, 20.0], "cannot tell"),
    ],
)
def test_times(old: list[float], new: list[float], verdict: str) -> None:
    assert verdicts(made(ttft=old), made(ttft=new)) == [verdict]


def test_of_throughput_more_is_better() -> None:
    old, new = [100.0, 101.0, 99.0], [150.0, 151.0, 149.0]
    figure = "tokens_per_s at 4"
    assert verdicts(made(**{figure: old}), made(**{figure: new})) == ["better"]
    assert verdicts(made(**{figure: new}), made(**{figure: old})) == ["worse"]


def test_a_change_that_is_sure_and_does_not_matter_is_none() -> None:
    old, new = [100.0, 100.01, 99.99], [100.5, 100.51, 100.49]
    (change,) = compare.compare(made(ttft=old), made(ttft=new))
    assert (change.verdict, change.why) == ("cannot tell", "under 2% either way")


def test_runs_of_the_same_seldom_differ() -> None:
    """Of 60 pairs of equal runs, with five figures each, some 5 % may find anything."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(60):
        runs = [made(**{f"f{i}": list(rng.normal(100, 10, 5)) for i in range(5)}) for _ in range(2)]
        wrong += any(v != "cannot tell" for v in verdicts(*runs))
    assert wrong <= 60 * 0.05 + 4  # two standard errors


def test_what_differs_is_not_compared() -> None:
    old, new = made(ttft=[1.0, 1.1, 0.9]), made(ttft=[2.0, 2.1, 1.9])
    assert verdicts(old, new) == ["worse"]
    for name, value in (
        ("settings", {"rate": 6.0}),
        ("machine", {**new["machine"], "processor": "another"}),
        ("tool", "tools/y.py"),
        ("problems", ["the client could not keep up"]),
    ):
        other = copy.deepcopy(new)
        other[name] = value
        assert compare.obstacles(old, other)
        assert verdicts(old, other) == ["cannot tell"]
    assert "cannot tell" in compare.lines([], [])[0]
    same = {**new, "tool": "llcuda bench x"}  # the same measurement by its other name
    assert verdicts({**old, "tool": "tools/bench_x.py"}, same) == ["worse"]
    assert compare.lines(compare.compare(old, new), [])[0].startswith("worse")


def test_documents_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    found = made(ttft=[1.0])
    document.write(file, found)
    assert document.read(file, trusting=True) == found
    for text in ("", "[]", "{}", '{"format": "llcuda-measure", "version": 99}'):
        file.write_text(text)
        with pytest.raises(ConfigError):
            document.read(file)
    with pytest.raises(ConfigError):
        document.read(tmp_path / "none")
    with pytest.raises(ConfigError):
        document.write(tmp_path / "no" / "folder", found)
