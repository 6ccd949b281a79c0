"""The tool that computes the catalogue's tables finds the turns of conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.bench.workload.quantiles import SHARES
from llcuda_net.bench.workload.traces import Entry
from tools.trace_quantiles import conversations, main, table


def test_a_request_goes_on_from_the_longest_and_latest_that_is_its_prefix() -> None:
    entries = [
        begins := Entry(0, 1100, 50, (0, 1, 2)),
        other := Entry(1, 1100, 50, (0, 7, 8)),
        second := Entry(2, 1700, 50, (0, 1, 2, 3)),  # of the first its two full blocks
        short := Entry(3, 600, 50, (0, 9)),  # one full block alone is like all others'
        third := Entry(4, 2100, 50, (0, 1, 2, 3, 4)),
        again := Entry(5, 1120, 50, (0, 1, 5)),  # no longer than the first and its answer
    ]
    first, later = conversations(entries)
    assert first == [begins, other, short, again]
    assert later == [(begins, second), (second, third)]


def test_a_table_has_a_value_at_each_share() -> None:
    found = table(range(1001))
    assert found == [round(1000 * share) for share in SHARES]


def test_it_prints_what_it_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n")
    assert main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "prompts: 1, mean 374.0" in said
    assert "first prompts" not in said
    assert main([str(tmp_path / "none")]) == 2
    assert "cannot read the trace" in capsys.readouterr().err
