"""llcuda-client --continue and --background; ids by their beginning, and `last`.

The server is a scripted one on loopback.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import llcuda_protocol as wire
from llcuda_net.cli.client.command import main
from llcuda_net.cli.common import Exit
from tests.support.cli.terminal import Terminal
from tests.support.client.attach_server import FEATURES, Lasting, Log
from tests.support.client.scripted_server import listening

Captured = pytest.CaptureFixture[str]
_CALL = ("tool_call", 0, "c0", "weather")


@pytest.fixture
def lasting() -> Lasting:
    server = Lasting()
    server.features = (*FEATURES, "channels", "previous", "delete")
    return server


@pytest.fixture(autouse=True)
def address(lasting: Lasting, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with listening(lasting.serve) as port:
        monkeypatch.setenv("LLCUDA_SERVER", f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


def run(*arguments: str) -> int:
    return main(list(arguments))


def asked(lasting: Lasting) -> list[wire.Generate]:
    return lasting.of(wire.Generate)


def entry(id_: str, **given: Any) -> dict[str, Any]:
    return {"id": id_, "state": "done", "created": 5.0, "tokens": 3, **given}


def type_in(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))


# -- --continue ID --------------------------------------------------------------------------------


def test_a_prompt_goes_on_with_an_answer(lasting: Lasting, capsys: Captured) -> None:
    assert run("and now?", "--continue", "resp_g7", "--system", "Be brief.") == Exit.OK
    (request,) = asked(lasting)
    assert request.previous == "g7"
    assert request.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "and now?"},
    ]
    assert capsys.readouterr() == ("and now?\n", "")


def test_without_it_nothing_is_gone_on_with(lasting: Lasting) -> None:
    assert run("hello") == Exit.OK
    assert asked(lasting)[0].previous is None


def test_what_the_server_refuses_is_one_line(lasting: Lasting, capsys: Captured) -> None:
    lasting.refusals = [("unknown_generation", False)]
    assert run("a", "--continue", "g7", "--json") == Exit.REFUSED
    out, err = capsys.readouterr()
    assert err == "llcuda-client: error: told so (unknown_generation)\n"
    assert json.loads(out)["code"] == "unknown_generation"


def test_an_earlier_server_is_not_asked(lasting: Lasting, capsys: Captured) -> None:
    lasting.features = FEATURES
    assert run("a", "--continue", "g7") == Exit.REFUSED
    err = capsys.readouterr().err
    assert "cannot go on with a conversation" in err
    assert err.count("\n") == 1
    assert not asked(lasting)


# -- --continue last ------------------------------------------------------------------------------


def test_last_is_the_newest_that_is_over_and_said_something(
    lasting: Lasting, capsys: Captured
) -> None:
    lasting.entries = [
        entry("g9", state="queued", tokens=0),
        entry("g8", state="running"),
        entry("g7", state="damaged"),
        entry("g6", state="failed", tokens=0),
        entry("g5", state="cancelled", preview="who\nam I?"),
        entry("g4"),
    ]
    assert run("a", "--continue", "last") == Exit.OK
    assert asked(lasting)[0].previous == "g5"
    err = capsys.readouterr().err
    assert err == "llcuda-client: goes on with g5: who am I?\n"


def test_what_is_done_may_have_said_nothing(lasting: Lasting) -> None:
    lasting.entries = [entry("g5", tokens=0), entry("g4")]
    assert run("a", "--continue", "last") == Exit.OK
    assert asked(lasting)[0].previous == "g5"


def test_an_admin_goes_on_with_their_own(lasting: Lasting) -> None:
    lasting.entries = [entry("g9", owner="bob"), entry("g8", owner="root")]
    lasting.report = {"user": "root"}
    assert run("a", "--continue", "last") == Exit.OK
    assert asked(lasting)[0].previous == "g8"


@pytest.mark.parametrize("entries", [[], [entry("g9", state="running")], [entry("g9", owner="b")]])
def test_there_may_be_none(
    lasting: Lasting, entries: list[dict[str, Any]], capsys: Captured
) -> None:
    lasting.entries = entries
    assert run("a", "--continue", "last") == Exit.REFUSED
    err = capsys.readouterr().err
    assert "none of your newest answers is over" in err
    assert err.count("\n") == 1
    assert not asked(lasting)


# -- ids that are not whole -----------------------------------------------------------------------

IDS = ("0192f3a4-b5c6-7000-8000-000000000002", "0192f3a4-b5c6-7000-8000-000000000001")


def test_an_id_may_be_given_by_its_beginning(lasting: Lasting, capsys: Captured) -> None:
    lasting.entries = [entry(IDS[0]), entry("0192f3a3-0000-7000-8000-000000000000")]
    assert run("a", "--continue", "resp_0192F3A4-b5") == Exit.OK
    assert asked(lasting)[0].previous == IDS[0]
    lasting.logs[IDS[0]] = Log(IDS[0], ["a"])
    capsys.readouterr()
    assert run("--attach", "0192f3a4") == Exit.OK
    assert capsys.readouterr() == ("a\n", "")
    assert run("--delete", "0192f3a4", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"event": "delete", "id": IDS[0]}
    assert IDS[0] not in lasting.logs


def test_several_that_begin_so_are_named(lasting: Lasting, capsys: Captured) -> None:
    lasting.entries = [entry(id_) for id_ in IDS]
    for flag in ("--attach", "--cancel", "--delete"):
        assert run(flag, "0192f3a4") == Exit.USAGE
        err = capsys.readouterr().err
        assert "2 answers begin with '0192f3a4'" in err
        assert all(id_ in err for id_ in IDS)


def test_what_begins_none_is_refused_by_the_server(lasting: Lasting, capsys: Captured) -> None:
    assert run("--delete", "abcd") == Exit.REFUSED
    assert "unknown_generation" in capsys.readouterr().err


def test_last_is_the_newest_that_can_be_meant(lasting: Lasting, capsys: Captured) -> None:
    lasting.entries = [
        entry("g9", owner="bob"),
        entry("g8", state="running", preview="why?"),
        entry("g7"),
    ]
    lasting.report = {"user": ""}
    for name in ("g8", "g7"):
        lasting.logs[name] = Log(name, [name])
    assert run("--attach", "last") == Exit.OK
    assert capsys.readouterr() == ("g8\n", "llcuda-client: g8: why?\n")
    assert run("--delete", "last") == Exit.OK
    assert list(lasting.logs) == ["g8"]
    assert run("--cancel", "last", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["id"] == "g8"


def test_there_may_be_no_last_one(lasting: Lasting, capsys: Captured) -> None:
    lasting.entries = [entry("g7")]
    assert run("--cancel", "last") == Exit.REFUSED
    assert "none of yours runs" in capsys.readouterr().err


# -- --background ---------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--background", "--detach"])
def test_it_is_left_running_and_can_be_gone_on_with(
    lasting: Lasting, flag: str, capsys: Captured
) -> None:
    assert run("hold on", flag, "--continue", "g7") == Exit.OK
    id_ = capsys.readouterr().out.strip()
    (request,) = asked(lasting)
    assert (request.previous, request.on_disconnect) == ("g7", 10**9)
    assert lasting.of(wire.Cancel) == [wire.Cancel(1, detach=True)]
    assert lasting.logs[id_].reason == ""
    lasting.go_on("!", reason="stop")
    assert run("--attach", f"resp_{id_}") == Exit.OK
    assert capsys.readouterr().out == "hold on!\n"


def test_its_document_says_what_it_goes_on_with(lasting: Lasting, capsys: Captured) -> None:
    assert run("hold on", "--background", "--json", "--continue", "last") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {
        "event": "detached",
        "id": "generation-0",
        "level": "disk",
        "cached": False,
        "previous": "g0",
    }


# -- --chat ---------------------------------------------------------------------------------------


def test_a_chat_goes_on(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run("my name is Ada") == Exit.OK
    capsys.readouterr()
    type_in(monkeypatch, "who am I?\nreally?\n/system\n/clear\nhello\n")
    assert run("--chat", "--continue", "generation-0") == Exit.OK
    out, err = capsys.readouterr()
    assert out == "who am I?\nreally?\nhello\n"  # and not the last answer, for a pipe
    assert "as it was when the conversation went on" in err
    requests = asked(lasting)[1:]
    assert [request.previous for request in requests] == ["generation-0"] * 2 + [None]
    assert [[m["content"] for m in request.messages or ()] for request in requests] == [
        ["who am I?"],
        ["who am I?", "who am I?", "really?"],
        ["hello"],
    ]


def test_a_chat_goes_on_with_what_its_tools_return(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    lasting.answer = [(_CALL, '{"city": '), (_CALL, '"Oslo"}')]
    assert run("how warm is it?") == Exit.OK
    lasting.answer = []
    type_in(monkeypatch, "7 degrees\nthanks\n")
    assert run("--chat", "--continue", "generation-0") == Exit.OK
    first, second = asked(lasting)[1:]
    reply = {"role": "tool", "tool_call_id": "c0", "content": "7 degrees"}
    assert first.messages == [reply]
    assert [m["role"] for m in second.messages or ()] == ["tool", "assistant", "user"]
    assert {first.previous, second.previous} == {"generation-0"}


def test_a_call_that_was_cut_is_not_asked_for(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting.answer = [(_CALL, '{"city": ')]
    assert run("how warm is it?") == Exit.OK
    lasting.answer = []
    lasting.logs["generation-0"].reason = "length"
    type_in(monkeypatch, "7 degrees\n")
    assert run("--chat", "--continue", "generation-0") == Exit.OK
    assert asked(lasting)[1].messages == [{"role": "user", "content": "7 degrees"}]


def test_a_chat_goes_on_after_a_failure_but_not_with_nothing(
    lasting: Lasting, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert run("half an answer") == Exit.OK
    lasting.logs["generation-0"].error = ("upstream_error", "it broke")
    type_in(monkeypatch, "go on\n")
    assert run("--chat", "--continue", "generation-0") == Exit.OK
    assert "it broke" in capsys.readouterr().err
    assert asked(lasting)[1].previous == "generation-0"
    type_in(monkeypatch, "go on\n")
    assert run("--chat", "--continue", "none") == Exit.REFUSED
    assert "no such thing" in capsys.readouterr().err
    assert len(asked(lasting)) == 2


def test_on_a_terminal_a_chat_shows_the_last_answer_and_how_to_go_on(
    lasting: Lasting, address: str
) -> None:
    assert run("my name is Ada") == Exit.OK
    lasting.entries = [entry("generation-0", preview="my name")]
    terminal = Terminal("--chat", "--continue", "last", "--server", address, TERM="dumb")
    terminal.until("goes on with generation-0: my name")
    terminal.until("my name is Ada\r\n")
    terminal.until("> ")
    terminal.type("who am I?\n")
    terminal.until("who am I?\r\n")
    terminal.until("who am I?\r\n")
    terminal.until("> ")
    terminal.type("\x04")
    command = f"llcuda-client --chat --continue generation-1 --server {address}"
    terminal.until(f"to go on later: {command}")
    assert terminal.end() == Exit.OK


def test_a_chat_that_is_not_kept_cannot_go_on_later(lasting: Lasting) -> None:
    lasting.accepted = {"level": "memory"}
    terminal = Terminal("--chat", "hello", TERM="dumb")
    terminal.until("hello\r\n")
    terminal.until("> ")
    terminal.type("\x04")
    with pytest.raises(AssertionError, match="it ended"):
        terminal.until("to go on later")
    assert terminal.end() == Exit.OK


# -- what does not go together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "--continue", "g", "--raw"], "--continue goes with a chat template"),
        (["--attach", "g", "--continue", "g"], "--attach and --continue do not go together"),
        (["--list", "--continue", "g"], "--list and --continue do not go together"),
        (["--attach", "g", "--background"], "--attach and --background do not go together"),
        (["--chat", "--background"], "--chat and --background do not go together"),
        (["a", "--background", "--stats"], "--background prints no answer, so --stats"),
        (["a", "--background", "--store", "none"], "--background with nothing stored"),
        (["a", "--background", "--on-disconnect", "5"], "--background lets the answer go on"),
        (["a", "--continue", "\udcff"], "the text of --continue"),
        (["a", "--param", "previous=g"], "--param cannot set previous"),
        (["a", "--param", "background=true"], "--param cannot set background"),
        (["--continue", "g"], "nothing to send"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str, capsys: Captured) -> None:
    assert run(*arguments) == Exit.USAGE
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
