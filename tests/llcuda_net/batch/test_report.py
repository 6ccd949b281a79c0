"""What is said of a job, and of what its ranks brought."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llcuda_net.batch import report
from llcuda_net.batch.distributor import WorkQueue
from llcuda_net.batch.input import Input
from llcuda_net.batch.job import Done
from llcuda_net.batch.rank import Tally
from llcuda_net.errors import ConfigError


def document(
    ranks: int, seconds: float, base: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """Of 1,000 tokens, with four requests of each rank always under way."""
    queue = SimpleNamespace(done=10, failed=0, skipped=0, problems=[])
    given = SimpleNamespace(count=10, repeated=0, first_repeated=None)
    tally = Tally(tokens=1000, answers=10, busy=0.95 * seconds * 4 * ranks)
    done = Done(seconds, tally, 4 * ranks)
    return report.document(
        cast(WorkQueue, queue),
        done,
        ranks,
        0,
        cast(Input, given),
        {"inflight": 4, **settings},
        base,
    )


def test_ranks_that_only_wait_are_occupied_and_no_faster() -> None:
    one = document(1, 10.0)
    four = document(4, 12.5, one)
    assert one["base"] is None
    assert four["occupancy"] == 0.95
    assert (four["base"]["speedup"], four["base"]["efficiency"]) == (0.8, 0.2)
    said = "\n".join(report.lines(four))
    assert "80.0/s by the wall clock; occupancy 95% (of all --inflight, the share in use)" in said
    assert "speedup 0.80, slower, against 100/s of 1 rank (one run each); efficiency 20%" in said
    assert "efficiency" not in "\n".join(report.lines(one))
    assert "note:" not in said


def test_a_base_of_two_ranks_and_of_other_work() -> None:
    two = document(2, 10.0, inflight=8)
    four = document(4, 5.0, two)
    assert (four["base"]["speedup"], four["base"]["efficiency"]) == (2.0, 1.0)
    assert "note: the base is of other work (inflight differ)" in "\n".join(report.lines(four))


def test_a_base_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    one = document(1, 10.0)
    file.write_text(json.dumps(one))
    assert report.read_base(file) == one


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*: No such file"),
        ("[", "is not JSON"),
        ("[]", "is not what --json prints"),
        ('{"format": "llcuda-measure"}', "is not what --json prints"),
        ('{"format": "llcuda-batch", "version": 1}', "is of version 1, and 2 is needed"),
        ('{"format": "llcuda-batch", "version": 2}', "it is no base"),
        (
            json.dumps({**document(1, 10.0), "tokens_per_s": 0.0}),
            "got no tokens: it is no base",
        ),
    ],
)
def test_what_is_no_base_is_refused_in_one_line(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "one.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=said) as error:
        report.read_base(file)
    assert len(str(error.value).splitlines()) == 1
