"""The parts of a chat without a terminal: its history, commands, requests and files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.chat import commands, report
from llcuda_net.cli.chat.kept import items_of, messages_of, request_of
from llcuda_net.cli.chat.prompt.editor import is_open, unquoted
from llcuda_net.cli.chat.prompt.history import KEPT, ChatHistory, default_path
from llcuda_net.cli.chat.questions import edited, text_of, with_text
from llcuda_net.cli.chat.talk import LocalTalk
from llcuda_net.cli.common import CommandError

# -- history --------------------------------------------------------------------------------------


def test_the_history_lasts_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "state" / "llcuda" / "chat_history"
    history = ChatHistory(path)
    for text in ("one", "two\nlines\u2028", "two\nlines\u2028", "日本"):
        history.append_string(text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [*ChatHistory(path).load_history_strings()] == ["日本", "two\nlines\u2028", "one"]


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "chat_history"
    path.write_text('"old"\n')
    path.chmod(0o644)
    ChatHistory(path).store_string("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_history_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "chat_history"
    path.write_text("".join(f"{json.dumps(f'n{n}')}\n" for n in range(2 * KEPT + 1)))
    found = [*ChatHistory(path).load_history_strings()]
    assert (len(found), found[0]) == (KEPT, f"n{2 * KEPT}")
    assert len(path.read_text().splitlines()) == KEPT
    history = ChatHistory(path)
    history.store_string("x" * 100_000)
    assert len(path.read_text().splitlines()) == KEPT


def test_damaged_lines_and_no_file_are_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "chat_history"
    path.write_bytes(b'"good"\n\xff\n{"a": 1}\n"better"\n"cut')
    assert [*ChatHistory(path).load_history_strings()] == ["better", "good"]
    ChatHistory(tmp_path / "chat_history" / "below a file").store_string("x")
    nothing = ChatHistory(None)
    nothing.append_string("secret")
    assert [*nothing.load_history_strings()] == []


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "llcuda" / "chat_history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_path().is_absolute()


# -- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "opens"),
    [('"""', True), ('"""a\nb', True), ('"""a\nb"""', False), ("a", False), ('"""a"', True)],
)
def test_a_block_of_several_lines(text: str, opens: bool) -> None:
    assert is_open(text) is opens


def test_the_quotation_marks_are_no_part_of_it() -> None:
    assert unquoted('"""\n  a\nb\n"""') == "  a\nb"
    assert unquoted('say """x"""') == 'say """x"""'


# -- commands -------------------------------------------------------------------------------------


def test_an_unknown_command_says_the_nearest() -> None:
    assert commands.unknown("/modle").startswith("there is no command /modle: did you mean /model?")
    assert commands.unknown("/frob") == "there is no command /frob; /help lists them"
    assert commands.known("/exit") == "/quit"
    assert commands.known("/frob") is None


def test_every_command_is_in_the_help_and_is_completed() -> None:
    shown = commands.help_text()
    for name in commands.COMMANDS:
        assert name in shown
        assert any(each.startswith(name) for each in commands.completions("/", []))
    assert commands.completions("/model s", ["smol"]) == ["/model smol"]


# -- requests -------------------------------------------------------------------------------------


def test_a_request_of_our_protocol_as_a_response() -> None:
    function = {"name": "weather", "parameters": {"type": "object"}}
    body, headers = request_of(
        {
            "temperature": 0.5,
            "n_predict": 7,
            "model": "demo",
            "timeout": 9.5,
            "level": "disk",
            "cache": True,
            "priority": "high",
            "deadline": 3.0,
            "on_disconnect": "continue",
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "weather",
            "reasoning_effort": "low",
        }
    )
    assert body == {
        "temperature": 0.5,
        "n_predict": 7,
        "model": "demo",
        "tools": [{"type": "function", **function}],
        "tool_choice": {"type": "function", "name": "weather"},
        "reasoning": {"effort": "low"},
    }
    assert headers == {
        "x-llcuda-timeout": "9.5",
        "x-llcuda-level": "disk",
        "x-llcuda-cache": "true",
        "x-llcuda-priority": "high",
        "x-llcuda-deadline": "3.0",
    }
    assert request_of({})[0] == {"n_predict": 2048}


def test_a_question_as_items_and_back() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    asked: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": "c0", "content": "7 degrees"},
        {"role": "user", "content": [image, "What is this?"]},
    ]
    items = [item for message in asked for item in items_of(message)]
    assert items[1]["content"] == [
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        {"type": "input_text", "text": "What is this?"},
    ]
    assert messages_of(items) == asked
    assert text_of(asked) == "What is this?"
    changed = with_text(asked, "And this?")
    assert changed[1]["content"] == [image, "And this?"]


# -- editing, saving, counting --------------------------------------------------------------------


def test_a_question_is_changed_in_the_users_editor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    assert edited("x") is None
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nls -l "$2" | cut -c 1-10 > mode; printf " and $1" >> "$2"\n')
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", f"{script} more")
    assert edited("a question") == "a question and more"
    assert (tmp_path / "mode").read_text() == "-rw-------\n"
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(CommandError, match="failed"):
        edited("x")
    monkeypatch.setenv("VISUAL", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="does not start"):
        edited("x")
    assert not [*tmp_path.glob("llcuda-*")]


class _Talk(LocalTalk):
    """Has said something."""

    @property
    def history(self) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": "What?"},
            {"role": "assistant", "content": "That."},
        ]


def test_what_is_kept_here_alone_is_saved_by_the_ending(tmp_path: Path) -> None:
    talk = _Talk({})
    assert report.save(str(tmp_path / "a.md"), talk) == f"written to {tmp_path / 'a.md'}"
    assert (tmp_path / "a.md").read_text() == "## User\n\nWhat?\n\n## Assistant\n\nThat.\n"
    report.save(str(tmp_path / "a.JSON"), talk)
    assert json.loads((tmp_path / "a.JSON").read_text()) == {"messages": talk.history}
    with pytest.raises(CommandError, match="is there already"):
        report.save(str(tmp_path / "a.md"), talk)
    with pytest.raises(CommandError, match="nothing to save"):
        report.save(str(tmp_path / "b.md"), LocalTalk({}))
    with pytest.raises(CommandError, match="say where"):
        report.save("", talk)


def test_how_much_of_the_context_is_left() -> None:
    models: list[dict[str, Any]] = [{"name": "a", "context": 4096, "default": True}, {"name": "b"}]
    assert report.token_lines(1096, models, None) == [
        "the conversation takes 1,096 tokens of 4,096: 3,000 left (73 %)"
    ]
    assert report.token_lines(1, models, "b") == [
        "the conversation takes 1 token; how many fit is not known"
    ]
    assert report.no_model("c1", ["c12"]).endswith("did you mean c12?")
    assert report.model_lines(models, "b") == [
        "MODEL  SLOTS  FREE  CONTEXT  ASKED",
        "a          ?     ?     4096",
        "b          ?     ?        ?  this one",
    ]
