"""The command lines of all campaigns: wrong options, Ctrl-C, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.processes import PATIENCE, children, environment, wait_until
from tools import chaos_campaign, crash_campaign, proxy_campaign, soak_campaign
from tools.campaign import command
from tools.campaign.campaign import Outcome, Plan
from tools.overhead.processes import StartError

WRONG: dict[ModuleType, list[list[str]]] = {
    crash_campaign: [["--kills", "-1"], ["--life", "2,1"], ["--break", "nothing"]],
    proxy_campaign: [["--minutes", "0"], ["--clients", "0"], ["--peace", "x"]],
    chaos_campaign: [["--minutes", "0"], ["--peace", "x"], ["--break", "nothing"]],
    soak_campaign: [["--minutes", "0"], ["--load", "-1"], ["--slots", "x"]],
}


@pytest.mark.parametrize("script", WRONG, ids=lambda script: str(script.__name__))
def test_a_wrong_option_is_usage(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in WRONG[script]:
        with pytest.raises(SystemExit) as ended:
            script.main(wrong)
        assert ended.value.code == 2, wrong
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert "example:" in capsys.readouterr().out


def test_an_interrupted_campaign_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, chaos_campaign.__file__, "--minutes", "60", "--peace", "0.5"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    ) as process:
        wait_until(lambda: any(tmp_path.glob("*/data/results.db")), "the server runs")
        started = children(process.pid)
        assert len(started) >= 2  # the server, and upstreams that are not just dead
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert said == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Found(Outcome[Plan]):
    """An outcome with violations where its seed is odd."""

    def document(self) -> dict[str, Any]:
        return {"seed": self.plan.seed}


async def work(plan: Plan, folder: Path, say: object) -> Found:
    if plan.seed < 0:
        raise StartError("it did not start")
    found = Found(plan)
    if plan.seed % 2:
        found.ledger.violation("odd")
    return found


def test_the_exit_code_says_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "json"

    def conducted(*plans: Plan, single: bool = False, broken: str | None = None) -> int:
        found = command.conduct(plans, work, lambda _: "", 7, file, single=single)
        return command.exit_code(*found, broken)

    assert conducted(Plan(2)) == 0
    assert conducted(Plan(2), Plan(1)) == 1
    assert conducted(Plan(2), Plan(1, broken="so")) == 0  # noticed
    assert conducted(Plan(2), Plan(4, broken="so")) == 1
    assert conducted(Plan(1, broken="so"), broken="so") == 1
    assert conducted(Plan(4, broken="so"), broken="so") == 0
    assert conducted(Plan(2), Plan(-1)) == 1
    assert capsys.readouterr().err == "it did not start\n"
    document = json.loads(file.read_text("utf-8"))
    assert (document["seed"], document["complete"]) == (7, False)
    assert document["campaigns"] == [{"seed": 2}]
    assert conducted(Plan(2), single=True) == 0
    document = json.loads(file.read_text("utf-8"))
    assert document["seed"] == 2
    assert document["machine"]["cores"]
    file.unlink()
    assert conducted(Plan(-1), single=True) == 1
    assert not file.exists()
