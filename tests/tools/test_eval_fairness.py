"""The tool that shows whether users get what is due to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import eval_fairness
from tools.queueing.scenario import OFF


def test_one_seed_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fairness.json"
    assert eval_fairness.main(["--seeds", "1", "--json", str(file)]) == 0
    fair, first_come = json.loads(file.read_text())["runs"]
    assert fair["beyond_one_largest_request"] <= OFF
    assert first_come["beyond_one_largest_request"] > 1
    table = capsys.readouterr().out
    assert table.count("fair ") == 1
    assert "first come" in table


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        eval_fairness.main(["--help"])
    assert "python tools/eval_fairness.py --seeds 5" in capsys.readouterr().out
