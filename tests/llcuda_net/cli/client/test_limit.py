"""Answers for which no limit was given: the default one, and the notes on a cut and on a loop."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llcuda_net.cli.client.command import main
from llcuda_net.cli.client.limit import cut_line
from llcuda_net.cli.common import Exit
from llcuda_net.client.events import Result
from tests.support.client.scripted_server import Scripted

pytestmark = pytest.mark.usefixtures("address")
DEFAULT = "the answer was cut after 2,048 tokens, the limit where none is given"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ([], [2048]),
        (["-n", "-1"], [None]),
        (["-n", "7"], [7]),
        (["--param", "n_predict=9"], [9]),
        (["--max-tokens=-1"], [None]),
    ],
)
def test_the_limit_that_is_sent(server: Scripted, options: list[str], sent: list[int]) -> None:
    server.features = ["attach"]
    for mode in ([], ["--detach"], ["--json"]):
        assert main(["hello", *options, *mode]) == Exit.OK
    found = [request.params.get("n_predict") for request in server.requests()]
    assert found == sent * 3


def test_a_smaller_context_is_the_limit(server: Scripted) -> None:
    server.context = 512
    assert main(["hello"]) == Exit.OK
    assert [request.params for request in server.requests()] == [{"n_predict": 2048}, {}]


def test_a_limit_that_was_given_is_refused_where_it_is_too_large(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    server.context = 512
    assert main(["hello", "-n", "600"]) == Exit.REFUSED
    assert "n_predict must be 1 to 512" in capsys.readouterr().err
    assert len(server.requests()) == 1


@pytest.mark.parametrize(
    ("options", "tokens", "said"),
    [
        ([], 2048, DEFAULT + "; for more, ask again with --max-tokens N (-1: until"),
        (["--json"], 2048, DEFAULT),
        ([], 300, "cut after 300 tokens: the model's context is full"),
        (["-n", "-1"], 4096, "cut after 4,096 tokens: the model's context is full"),
        (["-n", "2048"], 2048, ""),
    ],
)
def test_a_note_says_which_limit_cut(
    options: list[str], tokens: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"cut {tokens}", *options]) == Exit.OK
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.splitlines()) == bool(said)
    if "--json" in options:
        assert json.loads(out.splitlines()[-1])["reason"] == "length"
    else:
        assert out == "as far\n"


def test_a_chat_has_the_limit_and_the_note(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfcut 2048\n")))
    assert main(["--chat"]) == Exit.OK
    assert server.requests()[0].params == {"n_predict": 2048}
    assert f"{DEFAULT}; ask it to go on" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--json"], ["--no-stream"]])
def test_an_answer_that_repeats_itself_is_noted_once(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["loop so it goes", *options]) == Exit.OK
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert "its last 512 tokens are one block of 3 tokens, again and again. Ctrl-C" in line
    assert out.count("goes") in (600, 601)  # nothing was stopped
    prompt = tmp_path / "prompt"
    prompt.write_text("words " * 600)
    assert main(["--file", str(prompt), *options]) == Exit.OK
    # The scripted ids all differ, and where there are ids they count.
    assert capsys.readouterr().err.count("repeats itself: ") == ("--json" not in options)


def test_a_limit_that_cut_the_thinking_is_told() -> None:
    thought = Result("", "length", reasoning="Let me see", usage={"completion_tokens": 20})
    told = cut_line({"n_predict": 20}, thought)
    assert told == (
        "the model was still thinking after 20 tokens; for an answer, give it more with "
        "--max-tokens N"
    )
    assert cut_line({"n_predict": 20}, replace(thought, text="It is")) is None
    assert cut_line({"n_predict": 20}, replace(thought, reasoning="")) is None
    assert cut_line({"n_predict": 20}, replace(thought, reason="stop")) is None
    assert "the model's context is full" in (cut_line({"n_predict": -1}, thought) or "")
