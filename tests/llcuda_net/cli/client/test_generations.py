"""llcuda-client and generations that outlive a connection: reconnecting, and coming back to them.

The server is a scripted one on loopback, which breaks connections when it is told to.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llcuda_protocol as wire
from llcuda_net import sync
from llcuda_net.cli.client.command import main
from llcuda_net.cli.common import Exit
from tests.support.cli.terminal import PATIENCE, Terminal, spawn_client
from tests.support.client.attach_server import Lasting
from tests.support.client.scripted_server import listening

TEXT = "one two three four five"

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def lasting() -> Lasting:
    return Lasting(step=1)


@pytest.fixture(autouse=True)
def address(lasting: Lasting, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with listening(lasting.serve) as port:
        monkeypatch.setenv("LLCUDA_SERVER", f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"


def run(*arguments: str) -> int:
    return main(list(arguments))


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- reconnecting ---------------------------------------------------------------------------------


def test_a_lost_connection_is_a_note(lasting: Lasting, capsys: Captured) -> None:
    lasting.drops = {3, 4}
    lasting.splices = [3]
    assert run(TEXT, "--raw", "--stats") == Exit.OK
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err.splitlines()[:4] == [
        "llcuda-client: connection lost after 3 tokens; reconnecting",
        "llcuda-client: resumed at token 3",
        "llcuda-client: connection lost after 4 tokens; reconnecting",
        "llcuda-client: resumed at token 4",
    ]
    assert "  continued at token 3, after its server or upstream had stopped" in err


def test_json_tells_of_levels_durability_and_splices(lasting: Lasting, capsys: Captured) -> None:
    lasting.drops = {3}
    lasting.splices = [3]
    lasting.epoch = 2
    lasting.cached = True
    assert run(TEXT, "--raw", "--json", "--cache", "--seed", "1") == Exit.OK
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0] == {
        "event": "accepted",
        "id": "generation-0",
        "position": 0,
        "level": "disk",
        "epoch": 2,
        "cached": True,
        "wait": None,
        "reason": None,
    }
    pieces = [line for line in lines if line["event"] == "piece"]
    assert "".join(line["text"] for line in pieces) == TEXT
    assert [line["sequence"] for line in pieces] == list(range(5))
    assert {"event": "durable", "count": 5} in lines
    assert (lines[-1]["event"], lines[-1]["splices"], lines[-1]["cached"]) == ("done", [3], True)
    assert "llcuda-client: answered from the store\n" in err
    assert lasting.of(wire.Generate)[0].cache


def test_given_up_tells_how_to_read_on(lasting: Lasting, address: str, capsys: Captured) -> None:
    lasting.drops = {3}
    assert run(TEXT, "--raw", "--reconnect-seconds", "0") == Exit.CONNECT
    out, err = capsys.readouterr()
    assert out == "one two three"
    assert err == (
        f"llcuda-client: error: {address} closed the connection before the answer was complete; "
        "read on with: llcuda-client --attach generation-0 --from 3\n"
    )
    assert run("--attach", "generation-0", "--from", "3") == Exit.OK
    assert capsys.readouterr().out == " four five\n"

    lasting.drops = {3}
    lasting.greeting = lambda _: (
        wire.Error(0, "too_many_connections", "too many", retry=True) if not lasting.drops else None
    )
    arguments = (TEXT, "--raw", "--no-stream", "--json", "--reconnect-seconds", "0.2")
    assert run(*arguments, "--server", address) == Exit.CONNECT
    out, err = capsys.readouterr()
    (line,) = map(json.loads, out.splitlines())
    assert line["code"] == "no_connection"
    command = f"llcuda-client --attach generation-1 --from 0 --server {address}"
    assert line["message"] == (
        f"gave up after 0.2 s without a connection: too many; read on with: {command}"
    )
    assert "llcuda-client: no connection yet, trying again: too many\n" in err


def test_a_generation_lost_with_the_server(lasting: Lasting, capsys: Captured) -> None:
    lasting.drops = {3}
    lasting.forgetful = True
    assert run(TEXT, "--raw") == Exit.REFUSED
    out, err = capsys.readouterr()
    assert out == "one two three"
    assert err.splitlines()[-1] == (
        "llcuda-client: error: the generation was lost with the server; "
        "the 3 tokens that came are all of it (unknown_generation)"
    )


@pytest.mark.parametrize("options", [(), ("--json",), ("--no-stream",)])
def test_reading_from_beyond_the_end_is_an_error(
    lasting: Lasting, capsys: Captured, options: tuple[str, ...]
) -> None:
    """Of one that is over, and of one that ends before it has so many pieces."""
    assert run(TEXT, "--raw") == Exit.OK
    capsys.readouterr()
    assert run("--attach", "generation-0", "--from", "6", *options) == Exit.REFUSED
    assert "the answer is over, and has 5 pieces (ahead)" in capsys.readouterr().err
    assert run("--attach", "generation-0", "--from", "5", *options) == Exit.OK
    assert "the answer has 5 pieces: there is nothing after them" in capsys.readouterr().err

    assert run("hold on", "--raw", "--detach") == Exit.OK
    with spawn_client("--attach", "generation-1", "--from", "9", *options) as process:
        until(lambda: len(lasting.of(wire.Attach)) == 3)
        log = lasting.logs["generation-1"]
        log.pieces, log.reason = ["hold", " on", " to", " it"], "stop"
        assert run("--attach", "generation-0") == Exit.OK  # makes the server look again
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.REFUSED
    assert b"the answer is over, and has 4 pieces (ahead)" in err


def test_pieces_are_counted_from_0(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        run("--attach", "generation-0", "--from", "-1")
    assert end.value.code == Exit.USAGE
    assert "--from: must be 0 to 9007199254740991, not -1" in capsys.readouterr().err


# -- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ([], {"on_disconnect": None, "level": None, "cache": False, "fresh": True}),
        (["--on-disconnect", "continue"], {"on_disconnect": 10**9}),
        (["--on-disconnect", "cancel"], {"on_disconnect": 0}),
        (["--on-disconnect", "2.5"], {"on_disconnect": 2.5}),
        (["--idempotency-key", "mine"], {"key": "mine", "fresh": False}),
        (["--store", "none"], {"level": "memory"}),
        (["--store", "none", "--durability", "memory"], {"level": "memory"}),
        (["--durability", "strict"], {"level": "strict"}),
        (["--cache", "--temperature", "0", "--json"], {"cache": True, "durable": True}),
    ],
)
def test_what_policies_say(lasting: Lasting, arguments: list[str], sent: dict[str, Any]) -> None:
    assert run("a", "--raw", *arguments) == Exit.OK
    request = lasting.of(wire.Generate)[0]
    assert {name: getattr(request, name) for name in sent} == sent


# -- detach, attach, cancel -----------------------------------------------------------------------


def test_detach_attach_and_cancel(lasting: Lasting, capsys: Captured) -> None:
    assert run("hold on", "--raw", "--detach") == Exit.OK
    assert capsys.readouterr() == ("generation-0\n", "")
    assert lasting.of(wire.Generate)[0].on_disconnect == 10**9
    assert lasting.of(wire.Cancel) == [wire.Cancel(1, detach=True)]

    assert run("--cancel", "generation-0") == Exit.OK
    assert capsys.readouterr() == ("cancelled\n", "")
    assert run("--attach", "generation-0", "--from", "1") == Exit.OK
    assert capsys.readouterr() == (
        " on\n",
        "llcuda-client: the answer was cancelled before its end\n",
    )

    assert run(TEXT, "--raw", "--detach", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {
        "event": "detached",
        "id": "generation-1",
        "level": "disk",
        "cached": False,
    }
    assert run("--attach", "generation-1", "--no-stream", "--stats") == Exit.OK
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert "ended by stop" in err
    assert run("--attach", "generation-1", "--from", "3", "--json") == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines if line["event"] == "piece"] == [" four", " five"]
    assert run("--cancel", "generation-1") == Exit.OK
    assert capsys.readouterr() == ("was over already: stop\n", "")
    assert run("--cancel", "generation-1", "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {
        "event": "cancel",
        "id": "generation-1",
        "reason": "stop",
    }


@pytest.mark.parametrize("flag", ["--attach", "--cancel"])
def test_an_id_that_nobody_knows(flag: str, capsys: Captured) -> None:
    assert run(flag, "never") == Exit.REFUSED
    assert capsys.readouterr() == (
        "",
        "llcuda-client: error: no such thing (unknown_generation)\n",
    )
    assert run(flag, "never", "--json") == Exit.REFUSED
    assert json.loads(capsys.readouterr().out)["code"] == "unknown_generation"


@pytest.mark.parametrize("arguments", [["--attach", "x"], ["--cancel", "x"], ["a", "--detach"]])
def test_an_older_server_is_named(lasting: Lasting, arguments: list[str], capsys: Captured) -> None:
    lasting.features = ("generate",)
    assert run(*arguments) == Exit.REFUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert "old" in err
    assert err.count("\n") == 1


# -- as a process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)]
)
def test_an_interrupt_of_attach_only_stops_reading(
    lasting: Lasting, number: int, code: int, address: str
) -> None:
    with sync.connect(address) as client, client.generate(raw="hold on") as stream:
        with spawn_client("--attach", stream.id) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(7) == b"hold on"
            process.send_signal(number)
            assert process.wait(PATIENCE) == code
            assert process.stdout.read() == b""
            err = process.stderr.read().decode()
        assert err == (
            f"llcuda-client: stopped reading; read on with: llcuda-client --attach {stream.id} "
            f"--from 2; stop it with: llcuda-client --cancel {stream.id}\n"
        )
        until(lambda: lasting.of(wire.Cancel) == [wire.Cancel(1, detach=True)])
        assert lasting.logs[stream.id].reason == ""


def test_an_interrupt_of_an_own_answer_cancels_it(lasting: Lasting) -> None:
    with spawn_client("hold on", "--raw") as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == b"hold on"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == Exit.INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == b""
    until(lambda: lasting.logs["generation-0"].reason == "cancelled")


def test_an_interrupt_while_it_reconnects_ends_it_at_once(lasting: Lasting) -> None:
    lasting.drops = {2}
    lasting.greeting = lambda _: (
        wire.Error(0, "too_many_connections", "too many", retry=True) if not lasting.drops else None
    )
    with spawn_client(TEXT, "--raw") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(7) == b"one two"
        assert process.stderr.readline().endswith(b"reconnecting\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == Exit.INTERRUPTED
        assert process.stdout.read() == b""


def test_a_chat_goes_on_over_the_next_connection(lasting: Lasting) -> None:
    lasting.drops = {1, 2}
    with spawn_client("--chat", TEXT, stdin=subprocess.PIPE) as process:
        out, err = process.communicate(b"another question\n", PATIENCE)
    assert (process.returncode, out.decode()) == (Exit.OK, f"{TEXT}\nanother question\n")
    assert err.decode().splitlines()[:2] == [
        "llcuda-client: connection lost after 1 token; reconnecting",
        "llcuda-client: resumed at token 1",
    ]


def test_a_note_on_a_terminal_has_a_line_of_its_own(lasting: Lasting) -> None:
    lasting.drops = {2}
    lasting.greeting = lambda _: (
        wire.Error(0, "too_many_connections", "too many", retry=True) if not lasting.drops else None
    )
    terminal = Terminal(TEXT, "--raw", NO_COLOR="1")
    until(lambda: len(lasting.peers) > 2)
    lasting.greeting = lambda _: None
    # What is on the screen: where a line had begun when a note came, it ended there.
    screen = terminal.until(" five\r\n").replace("\r\n", "\n")
    lines = [line.rpartition("\r\x1b[K")[2] for line in screen.split("\n")]
    assert [line for line in lines if line.startswith("llcuda-client")] == [
        "llcuda-client: connection lost after 2 tokens; reconnecting",
        "llcuda-client: no connection yet, trying again: too many",
        "llcuda-client: resumed at token 2",
    ]
    assert "".join(line for line in lines if not line.startswith("llcuda-client")) == TEXT
    assert terminal.end() == Exit.OK


def test_notes_are_grey_unless_no_color(lasting: Lasting) -> None:
    lasting.drops = {2}
    terminal = Terminal(TEXT, "--raw")
    terminal.until("llcuda-client: \x1b[2mresumed at token 2\x1b[0m\r\n")
    assert terminal.end() == Exit.OK
