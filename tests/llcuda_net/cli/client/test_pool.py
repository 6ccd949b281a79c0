"""llcuda-client with a server of several upstreams: models, turns, splices, lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

import llcuda_protocol as wire
from llcuda_net.cli.client.command import main
from llcuda_net.cli.client.output import waiting_line
from llcuda_net.cli.common import Exit
from llcuda_net.client.events import Queued
from tests.support.cli.terminal import Terminal
from tests.support.client.scripted_server import Scripted

Captured = pytest.CaptureFixture[str]

POOL = ["attach", "pool", "splice", "list"]
ENTRIES: list[dict[str, Any]] = [
    {"id": "g3", "state": "queued", "created": 3e9, "position": 2, "preview": "Why\x1b[2J\nis"},
    {"id": "g2", "state": "running", "created": 2e9, "tokens": 7, "model": "demo"},
    {"id": "g1", "state": "done", "created": 1e9, "tokens": 12, "model": "demo", "text": "ends"},
]
MODELS: list[dict[str, Any]] = [
    {
        "name": "qwen3-8b",
        "upstreams": ["a", "b"],
        "slots": 8,
        "free": 3,
        "context": 8192,
        "default": True,
    },
    {"name": "small", "upstreams": ["c"], "slots": None},
]


def run(*arguments: str) -> int:
    """The exit code, however the command ends."""
    try:
        return main(list(arguments))
    except SystemExit as error:
        return int(error.code or 0)


@pytest.fixture
def pool(server: Scripted, address: str) -> Scripted:
    """A scripted server that knows all features."""
    assert address
    server.features = POOL
    return server


# -- models and turns ---------------------------------------------------------------------------


def test_flags_become_the_request(pool: Scripted) -> None:
    flags = ("--model", "qwen3-8b", "--priority", "high", "--deadline", "12.5")
    assert run("a prompt", *flags) == Exit.OK
    (request,) = pool.requests()
    assert (request.model, request.priority) == ("qwen3-8b", "high")
    assert request.deadline is not None
    assert 0 < request.deadline <= 12.5
    assert request.params == {"n_predict": 2048}
    assert request.splices
    assert run("--detach", "a prompt", *flags) == Exit.OK
    assert pool.requests()[1].model == "qwen3-8b"


@pytest.mark.usefixtures("address")
def test_a_server_that_would_ignore_them_is_one_line(server: Scripted, capsys: Captured) -> None:
    for flags, lacks in (
        (("x", "--model", "a"), "knows no models"),
        (("x", "--priority", "low"), "knows no priorities"),
        (("x", "--deadline", "1"), "knows no deadlines"),
        (("--models",), "knows no models"),
        (("--list",), "has no list of generations"),
    ):
        assert run(*flags) == Exit.REFUSED
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("llcuda-client: error: ")
        assert err.endswith(f" is of an earlier version: it {lacks} (unsupported)\n")
    assert server.seen == []
    assert run("x") == Exit.OK
    assert not server.requests()[0].splices


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--priority", "urgent", "x"), "invalid choice: 'urgent'"),
        (("--deadline", "-1", "x"), "--deadline: must be 0 to 1000000000, not -1"),
        (("--deadline", "soon", "x"), "--deadline: must be a number, not 'soon'"),
        (("--model", "\udcff", "x"), "the text of --model is not UTF-8 text"),
        (("--param", "model=a", "x"), "--param cannot set model"),
        (("--param", "priority=low", "x"), "--param cannot set priority"),
        (("--param", "deadline=1", "x"), "--param cannot set deadline"),
        (("--param", "splices=true", "x"), "--param cannot set splices"),
        (("--list", "0"), "--list: must be 1 to 1000, not 0"),
        (("--list", "1001"), "--list: must be 1 to 1000, not 1001"),
        (("--list", "all"), "--list: must be a whole number, not 'all'"),
        (("--list", "5", "x"), "--list and a prompt do not go together"),
        (("--list", "--model", "a"), "--list and --model do not go together"),
        (("--list", "--models"), "--models and --list do not go together"),
        (("--models", "--chat"), "--models and --chat do not go together"),
        (("--attach", "g", "--priority", "low"), "--attach and --priority do not go together"),
        (("--attach", "g", "--list"), "--list and --attach do not go together"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], told: str, capsys: Captured
) -> None:
    assert run(*arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1


def test_models_are_a_table(pool: Scripted, capsys: Captured) -> None:
    pool.report = {"models": MODELS}
    assert run("--models") == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "MODEL     SLOTS  FREE  CONTEXT  DEFAULT  UPSTREAMS",
        "qwen3-8b      8     3     8192  yes      a, b",
        "small         ?     ?        ?           c",
    ]
    assert run("--models", "--json") == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"event": "model", **model} for model in MODELS]
    pool.report = {}
    assert run("--models") == Exit.OK
    assert capsys.readouterr() == ("", "the server has no model now\n")


# -- lists --------------------------------------------------------------------------------------


def test_a_list_is_a_table(pool: Scripted, capsys: Captured) -> None:
    pool.entries = ENTRIES
    assert run("--list") == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    head, *rows = out.splitlines()
    assert head.split() == ["ID", "WHEN", "STATE", "TOKENS", "MODEL", "PROMPT"]
    assert [row.split()[0] for row in rows] == ["g3", "g2", "g1"]
    # No control character reaches the terminal, and no row breaks in two.
    assert rows[0].endswith("queued, 2       0         Why\\x1b[2J is")
    assert rows[1].split()[3:] == ["running", "7", "demo"]
    assert run("--list", "2") == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 3
    lists = [event for event in pool.seen if isinstance(event, wire.ListGenerations)]
    assert [(event.limit, event.state, event.before) for event in lists] == [
        (20, None, None),
        (2, None, None),
    ]


def test_owners_are_shown_where_they_are_told(pool: Scripted, capsys: Captured) -> None:
    pool.entries = [ENTRIES[0], {**ENTRIES[1], "owner": "ann"}]
    assert run("--list") == Exit.OK
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[4:6] == ["OWNER", "MODEL"]
    assert "ann" not in first
    assert second.split()[4:] == ["7", "ann", "demo"]


def test_a_list_in_json_is_a_line_an_entry(pool: Scripted, capsys: Captured) -> None:
    pool.entries = ENTRIES
    assert run("--list", "--json") == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == ["g3", "g2", "g1"]
    for line, entry in zip(lines, ENTRIES, strict=True):
        assert line["event"] == "generation"
        assert {key: line[key] for key in entry} == entry
    pool.entries = []
    assert run("--list", "--json") == Exit.OK
    assert capsys.readouterr() == ("", "")
    assert run("--list") == Exit.OK
    assert capsys.readouterr() == ("", "there are no generations\n")


# -- waiting, and going on elsewhere --------------------------------------------------------------


@pytest.mark.parametrize(
    ("queued", "line"),
    [
        (Queued(0), "waiting..."),
        (Queued(0, 3.0, "why"), "waiting..."),
        (Queued(3), "waiting... position 3"),
        (Queued(3, 12.4), "waiting... position 3, about 12 s"),
        (Queued(3, 0.0), "waiting... position 3, about 1 s"),
        (Queued(3, 99.4), "waiting... position 3, about 99 s"),
        (Queued(3, 119.0), "waiting... position 3, about 2 min"),
        (Queued(3, 90 * 60), "waiting... position 3, about 90 min"),
        (Queued(3, 7300), "waiting... position 3, about 2 h"),
        (Queued(1, None, "no slot"), "waiting... position 1: no slot"),
        (Queued(1, 2.0, "no slot"), "waiting... position 1, about 2 s: no slot"),
    ],
)
def test_what_a_person_who_waits_is_told(queued: Queued, line: str) -> None:
    assert waiting_line(queued) == line


def test_json_tells_of_waits_and_splices(pool: Scripted, capsys: Captured) -> None:
    pool.queue, pool.wait, pool.reason = (2, 1), 4.5, "all 4 slots are in use"
    assert run("moved on", "--json") == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    lines = [json.loads(line) for line in out.splitlines()]
    told = {"wait": 4.5, "reason": "all 4 slots are in use"}
    assert lines[0] | {"position": 2, **told} == lines[0]
    again = {"wait": 4.5, "reason": "no upstream answers"}
    assert lines[1:-1] == [
        {"event": "queue", "position": 1, **told},
        {"event": "piece", "sequence": 0, "text": "moved"},
        {"event": "queue", "position": 2, **again},
        {"event": "queue", "position": 1, **again},
        {"event": "queue", "position": 0, "wait": None, "reason": None},
        {"event": "splice", "position": 1, "reason": "upstream a failed"},
        {"event": "piece", "sequence": 1, "text": " on"},
    ]
    assert lines[-1]["splices"] == [1]


def test_text_tells_of_splices_on_stderr(pool: Scripted, capsys: Captured) -> None:
    notes = [
        "llcuda-client: waiting... position 2: no upstream answers",
        "llcuda-client: continued at token 1 after a failure: upstream a failed",
    ]
    assert run("moved on") == Exit.OK
    out, err = capsys.readouterr()
    assert out == "moved on\n"
    assert err.splitlines() == notes
    assert run("moved on", "--no-stream") == Exit.OK
    out, err = capsys.readouterr()
    assert out == "moved on\n"
    assert err.splitlines() == notes[1:]  # nothing was shown yet that could have stopped
    pool.features = ["attach"]
    assert run("moved on") == Exit.OK
    assert capsys.readouterr().err.splitlines() == notes[:1]


def test_a_splice_on_a_terminal_spoils_no_line(pool: Scripted) -> None:
    terminal = Terminal("moved on", NO_COLOR="1")
    terminal.until("moved")
    shown = terminal.until(" on\r\n")
    assert "\r\nllcuda-client: waiting... position 2: no upstream answers\r\n" in shown
    assert "llcuda-client: continued at token 1 after a failure: upstream a failed\r\n" in shown
    assert terminal.end() == Exit.OK


def test_the_waiting_line_is_no_wider_than_the_terminal(pool: Scripted) -> None:
    pool.queue, pool.reason = (1, 0), "x\x1b[2J" * 40
    terminal = Terminal("a b", NO_COLOR="1")
    shown = terminal.until("…")
    line = shown.rpartition("\x1b[K")[2]
    assert line.startswith("waiting... position 1: x\\x1b[2Jx")
    assert len(line) == 79
    terminal.until("a b\r\n")
    assert terminal.end() == Exit.OK


def test_a_chat_asks_for_the_same_model_each_time(
    pool: Scripted, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["a", "moved on"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, "/exit"))
    assert run("--chat", "--model", "demo", "--priority", "low") == Exit.OK
    assert [(r.model, r.priority, r.splices) for r in pool.requests()] == [
        ("demo", "low", True)
    ] * 2
    out, err = capsys.readouterr()
    assert out == "a\nmoved on\n"
    assert "continued at token 1 after a failure" in err
