"""`llcuda-client --certainty`: marks in the answer, figures beside it."""

from __future__ import annotations

import io
import json
import math
import sys
from typing import Any

import pytest

import llcuda_protocol as wire
from llcuda_net.cli.client.command import main
from llcuda_net.cli.common import Exit
from tests.support.client.scripted_server import ID, Peer, Scripted

TEXT = "the moon is probably made of rock"


class Unsure(Scripted):
    """Gives the prompt back, with log-probabilities where asked: "probably" came with 10%."""

    async def _generate(self, peer: Peer, event: wire.Generate) -> None:
        words = (event.messages or [])[-1]["content"].split(" ")
        pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        logprobs = None
        if event.params.get("n_probs"):
            logprobs = [[self._token(piece)] for piece in pieces]
        await peer.send(
            wire.Accepted(event.stream, ID),
            wire.Tokens(event.stream, 0, pieces, None, logprobs),
            wire.Done(event.stream, "stop", id=ID, usage={"completion_tokens": len(pieces)}),
        )

    def _token(self, piece: str) -> wire.TokenLogprob:
        logprob = math.log(0.1 if "probably" in piece else 0.99)
        top = (wire.TopToken(1, piece.encode(), logprob),)
        return wire.TokenLogprob(1, piece.encode(), logprob, top)


@pytest.fixture
def server() -> Scripted:
    return Unsure()


def test_the_least_certain_words_are_marked_and_the_figures_are_on_stderr(
    server: Scripted, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--certainty", TEXT]) == Exit.OK
    out, err = capsys.readouterr()
    assert out == "the moon is [probably?] made of rock\n"
    mean = -(math.log(0.1) + 6 * math.log(0.99)) / 7
    assert f"mean surprisal  {mean:.3g} nats" in err
    assert f"perplexity      {math.exp(mean):.3g}\n" in err
    assert "least certain   'the moon is probably made' (tokens 0 to 4" in err
    assert server.requests()[0].params == {"n_predict": 2048, "n_probs": 10}


@pytest.mark.parametrize(("given", "sent"), [("3", 3), ("0", 10)])
@pytest.mark.usefixtures("address")
def test_as_many_candidates_as_the_user_says(server: Scripted, given: str, sent: int) -> None:
    assert main(["--certainty", "--n-probs", given, TEXT]) == Exit.OK
    assert server.requests()[0].params == {"n_predict": 2048, "n_probs": sent}


@pytest.mark.parametrize("no_colour", [False, True])
@pytest.mark.usefixtures("address")
def test_colours_on_a_terminal(no_colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    assert main(["--certainty", f"{TEXT} \x1b[31m"]) == Exit.OK
    marked = "[probably?]" if no_colour else "\x1b[1;33mprobably\x1b[0m"
    shown = terminal.getvalue()
    assert shown == f"the moon is {marked} made of rock \\x1b[31m\n"


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.usefixtures("address")
def test_in_json_the_figures_are_in_the_line_done(
    at_once: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--no-stream"] if at_once else []
    assert main(["--certainty", "--json", TEXT, *extra]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == (1 if at_once else 9)
    found = lines[-1]["certainty"]
    assert found["tokens"] == 7
    assert found["mean_surprisal"] == pytest.approx(
        -(math.log(0.1) + 6 * math.log(0.99)) / 7, rel=1e-5
    )
    assert found["least_certain"]["behind"] - found["least_certain"]["first"] == 5
    assert not any("certainty" in line for line in lines[:-1])


@pytest.mark.usefixtures("address")
def test_without_it_nothing_of_it_is_asked_or_told(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", TEXT]) == Exit.OK
    assert "certainty" not in json.loads(capsys.readouterr().out.splitlines()[-1])
    assert server.requests()[0].params == {"n_predict": 2048}


@pytest.mark.usefixtures("address")
def test_an_upstream_that_gives_none_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def plain(self: Unsure, peer: Peer, event: wire.Generate) -> None:
        await peer.send(
            wire.Accepted(event.stream, ID),
            wire.Tokens(event.stream, 0, ["hello"]),
            wire.Done(event.stream, "stop", id=ID),
        )

    monkeypatch.setattr(Unsure, "_generate", plain)
    assert main(["--certainty", "hi"]) == Exit.OK
    out, err = capsys.readouterr()
    assert out == "hello\n"
    assert "no log-probabilities came" in err


@pytest.mark.usefixtures("address")
def test_a_chat_marks_each_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEXT}\nit is probably so\n"))
    assert main(["--chat", "--certainty"]) == Exit.OK
    out, err = capsys.readouterr()
    assert out == "the moon is [probably?] made of rock\nit is [probably?] so\n"
    assert err.count("mean surprisal") == 2
