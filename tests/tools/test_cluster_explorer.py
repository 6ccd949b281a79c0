"""The explorer's command: what it has visited, what it finds, and which exit code that is."""

from __future__ import annotations

import pytest

from tests.support.cluster.ownership import Rules
from tools import cluster_explorer

_SMALL = Rules(servers=2, tokens=1, under_way=1)


def test_a_scope_is_explored(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster_explorer.main(["--tokens", "1", "--under-way", "1"]) == 0
    told = capsys.readouterr().out
    states = len(cluster_explorer.visited(_SMALL).stuck), cluster_explorer.visited(_SMALL).states
    assert states[0] == 0
    assert f"2 servers, 1 tokens, 1 of each write under way: {states[1]:,} states" in told
    assert "control" not in told


def test_without_options_the_scopes_and_the_controls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_explorer, "SCOPES", (_SMALL,))
    broken = Rules(tokens=1, under_way=1, commit_first=False)
    monkeypatch.setattr(cluster_explorer, "CONTROLS", {"commit_first": broken})
    assert cluster_explorer.main([]) == 0
    assert "control commit_first: noticed after 3 steps" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["SCOPES", "CONTROLS"])
def test_what_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    broken = Rules(tokens=1, under_way=1, fence_first=False)
    scopes = (broken,) if what == "SCOPES" else ()
    monkeypatch.setattr(cluster_explorer, "SCOPES", scopes)
    controls = {"nothing": _SMALL} if what == "CONTROLS" else {}
    monkeypatch.setattr(cluster_explorer, "CONTROLS", controls)
    assert cluster_explorer.main([]) == 1
    said = "WRONG: " if what == "SCOPES" else "control nothing: NOT NOTICED"
    assert said in capsys.readouterr().out
