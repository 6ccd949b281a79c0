"""The crash campaign: 25 kills come out well, broken servers do not, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.client.stream import Piece, Result
from llcuda_net.storage.records import Level, Splice, TokenLog
from llcuda_net.storage.records import Result as Stored
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.processes import PATIENCE, children, environment, wait_until
from tools import crash_campaign
from tools.crash import kept
from tools.crash.broken import MODES
from tools.crash.jobs import FLAVOURS, KINDS, Job, SyntheticJobs, computed
from tools.crash.ledger import Ledger, Reading, Receipt, differs
from tools.synthetic.tokens import generated, generation

SCRIPT = [sys.executable, crash_campaign.__file__]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def test_25_kills_lose_nothing_and_broken_servers_are_found_out(tmp_path: Path) -> None:
    file = tmp_path / "crash.json"
    options = ("--kills", "25", "--life", "0.05,0.6", "--rate", "100", "--seed", "5")
    ended = run(*options, "--json", str(file))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "violations        none" in ended.stdout
    whole, *controls = json.loads(file.read_text())["campaigns"]
    counts = whole["counts"]
    assert (whole["violations"], whole["kills"]) == ([], 25)
    assert whole["kills_mid_stream"] > 12
    assert whole["streams_cut"] >= whole["kills_mid_stream"]
    assert counts["splices"] > 25
    assert counts["stored"] == counts["unaltered at the end"] == counts["found in the store"]
    assert all(counts[f"{kind} jobs"] for kind in KINDS)
    # Which harm is seen first is chance.
    for control in controls:
        assert control["violations"]
        assert f"control {control['broken']}: noticed at kill " in ended.stdout
    assert [control["broken"] for control in controls] == list(MODES)


def test_an_interrupted_campaign_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SCRIPT, "--kills", "1000", "--life", "5,5"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    ) as process:
        wait_until(lambda: any(tmp_path.glob("*/data/results.db")), "the server runs")
        started = children(process.pid)
        assert len(started) == 2
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert said == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("wrong", [["--kills", "-1"], ["--life", "2,1"], ["--break", "nothing"]])
def test_a_wrong_option_is_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        crash_campaign.main(wrong)
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        crash_campaign.main(["--help"])
    assert "example:" in capsys.readouterr().out


# -- the answers that are expected --------------------------------------------------------------


def test_what_is_expected_is_what_the_made_up_language_says() -> None:
    jobs = SyntheticJobs(random.Random(1))
    drawn = [jobs.draw() for _ in range(400)]
    assert {job.kind for job in drawn} == set(KINDS)
    assert {job.flavour for job in drawn} == set(FLAVOURS)
    late = 0
    for job in drawn:
        assert [piece.sequence for piece in job.pieces] == list(range(len(job.pieces)))
        if "raw" not in job.ask:
            continue
        text = generation(job.ask["raw"], job.ask["n_predict"])
        if job.flavour != "stop":
            assert (job.text, job.reason, job.stop) == (text, "length", None)
        elif job.stop is not None:
            assert (job.text, job.reason) == (text[: text.index(job.stop)], "stop")
        else:
            assert text.startswith(job.text)
        late += sum(len(piece.text) > 6 for piece in job.pieces)  # with what was held back
    assert late > 50


def test_ids_and_probabilities_are_those_of_the_last_token() -> None:
    pieces, reason, stop, tokens = computed("x [[split:3]]", {"n_predict": 30, "n_probs": 2})
    assert (reason, stop, tokens) == ("length", None, 30)
    ids = generated("x [[split:3]]", 30)
    assert [piece.id for piece in pieces] == [i for i in ids if i > 255 or i in _last_bytes(ids)]
    for piece in pieces:
        assert piece.logprobs is not None
        assert [found.id for found in piece.logprobs] == [piece.id]


def _last_bytes(ids: list[int]) -> set[int]:
    """The last of the four bytes of each emoji."""
    return {ids[n + 3] for n, i in enumerate(ids[:-3]) if i == 0xF0}


# -- what is noticed ----------------------------------------------------------------------------


def job(kind: str = "read", count: int = 4, **ask: Any) -> Job:
    pieces = tuple(Piece(n, f" {n}", 1000 + n) for n in range(count))
    return Job(kind, "plain", ask, pieces, "length", None, count, 3)


def told(ask: Job, **changes: Any) -> Result:
    usage = {"completion_tokens": ask.tokens, "prompt_tokens": ask.prompt_tokens}
    return Result(**{"text": ask.text, "reason": "length", "usage": usage, **changes})


def read(ask: Job, pieces: list[Piece], **changes: Any) -> Ledger:
    ledger = Ledger()
    reading = Reading(ledger, ask)
    for piece in pieces:
        reading.piece(piece)
    reading.end("id", told(ask, **changes))
    return ledger


def test_a_reading_that_is_right() -> None:
    ask = job()
    ledger = read(ask, list(ask.pieces))
    assert ledger.violations == []
    assert ledger.new == {"id": Receipt(ask, "length", 4, [])}
    assert not ledger.reading


@pytest.mark.parametrize(
    ("order", "what"),
    [
        ([0, 1, 3], "piece 3 came too early, where 2 was due"),
        ([0, 1, 1, 2, 3], "piece 1 came again, where 2 was due"),
        ([0, 1, 2], "it ended after 3 of 4 pieces"),
        ([0, 1, 2, 3, 4], "piece 4 ' 4' came after the end"),
    ],
)
def test_a_gap_a_repeat_and_a_wrong_end_are_noticed(order: list[int], what: str) -> None:
    five = job(count=5).pieces
    ledger = read(job(), [five[n] for n in order])
    assert ledger.violations == [f"read/plain: {what}"]


@pytest.mark.parametrize(
    "wrong",
    [Piece(2, " X", 1002), Piece(2, " 2", 7), Piece(2, " 2", None), Piece(2, " 2", 1002, [])],
)
def test_another_piece_is_noticed(wrong: Piece) -> None:
    ask = job()
    ledger = read(ask, [*ask.pieces[:2], wrong, ask.pieces[3]])
    assert len(ledger.violations) == 1
    assert "piece 2 is" in ledger.violations[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "stop"},
        {"stop": "x"},
        {"usage": {"completion_tokens": 5, "prompt_tokens": 3}},
        {"usage": {"completion_tokens": 4, "prompt_tokens": 4}},
        {"reason": "cancelled"},
    ],
)
def test_another_ending_is_noticed(changes: dict[str, Any]) -> None:
    ask = job()
    assert len(read(ask, list(ask.pieces), **changes).violations) == 1


def result(ask: Job, **changes: Any) -> Stored:
    usage = {"completion_tokens": ask.tokens, "prompt_tokens": ask.prompt_tokens}
    log = TokenLog([p.text for p in ask.pieces], [p.id for p in ask.pieces])
    fields: dict[str, Any] = {"id": "id", "state": "done", "created": 1, "finished": 2, "log": log}
    fields |= {"reason": "length", "usage": usage, "level": Level.DISK}
    return Stored(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, None),
        ({"state": "interrupted"}, "state"),
        ({"log": TokenLog([" 0", " 1", " 2"], [1000, 1001, 1002])}, "text"),
        ({"log": TokenLog([" 0 1", " 2", " 3"], [1001, 1002, 1003])}, "pieces"),
        ({"log": TokenLog([" 0", " 1", " 2", " 3"], [1000, 1001, 1002, 7])}, "ids"),
        ({"reason": "stop"}, "ending"),
        ({"usage": {"completion_tokens": 3, "prompt_tokens": 3}}, "ending"),
        ({"splices": [Splice(2, "u", 1)]}, "splices"),
    ],
)
def test_a_stored_result_that_differs_is_noticed(changes: dict[str, Any], what: str | None) -> None:
    ask = job()
    found = differs(Receipt(ask, "length", 4, []), result(ask, **changes))
    assert (found is None) is (what is None)
    if what is not None:
        assert f"its {what} is" in (found or "")


def test_of_a_cancelled_one_all_that_was_read_must_be_there() -> None:
    ask = job("cancel")
    log = TokenLog([" 0", " 1"], [1000, 1001])
    cut = result(ask, state="cancelled", log=log, reason="", usage={})
    assert differs(Receipt(ask, "cancelled", 2, []), cut) is None
    assert "a reader had 3" in (differs(Receipt(ask, "cancelled", 3, []), cut) or "")


async def test_what_is_missing_altered_or_unknown_in_the_store_is_noticed(tmp_path: Path) -> None:
    ask = job()
    store = SqliteStore(tmp_path, write=True)
    store.put([result(ask, id=name) for name in ("kept", "altered", "unknown")])
    store.close()
    ledger = Ledger()
    ledger.new = {name: Receipt(ask, "length", 4, []) for name in ("kept", "altered", "missing")}
    await kept.check_new(tmp_path, ledger)
    assert ledger.violations == ["missing: acknowledged, and not in the store"]
    ledger = Ledger()
    ledger.new = {name: Receipt(ask, "length", 4, []) for name in ("kept", "altered")}
    await kept.check_new(tmp_path, ledger)
    assert (ledger.violations, ledger.counts["found in the store"]) == ([], 2)
    ledger.kept["altered"] = ledger.kept["altered"][::-1]
    await kept.check_all(tmp_path, ledger)
    assert sorted(ledger.violations) == [
        "altered: altered since it was acknowledged",
        "unknown: in the store, and no client knows of it",
    ]
    assert ledger.counts["contents verified"] > 0
