"""llcuda-client with tools, images and reasoning, in this process against a scripted server."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.client.command import main
from llcuda_net.cli.common import Exit
from tests.support.cli.fake_terminal import EVIL, FakeTerminal, is_obeyed
from tests.support.client.media import PNG, WAV
from tests.support.client.scripted_server import ID, Scripted

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
REASONING, TEXT = ("reasoning", 0, "", ""), ("text", 0, "", "")
WEATHER = ("tool_call", 0, "c0", "weather")
TIME = ("tool_call", 1, "c1", "time")
THOUGHTFUL = [(REASONING, "\nLet me"), (REASONING, " see."), (TEXT, "It is"), (TEXT, " warm.")]
CALLING = [(TEXT, "I look."), (WEATHER, ""), (WEATHER, '{"city": '), (WEATHER, '"Oslo"}')]
CALLING += [(TIME, "{"), (TIME, "}")]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server(server: Scripted) -> Scripted:
    server.features = ["attach", "channels", "uploads", "delete"]
    return server


@pytest.fixture
def tools(tmp_path: Path) -> str:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([TOOL]))
    return str(file)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """A terminal for stdout and stderr."""
    monkeypatch.setenv("TERM", "xterm")
    return FakeTerminal()


def run(*arguments: str, on: FakeTerminal | None = None) -> int:
    """The exit code, however the command ends."""
    try:
        if on is None:
            return main(list(arguments))
        with redirect_stdout(on), redirect_stderr(on):
            return main(list(arguments))
    except SystemExit as error:
        return int(error.code or 0)


def shown(screen: FakeTerminal) -> str:
    """What stays on a terminal; its colours are the codes in brackets."""
    lines = []
    for line in screen.text.split("\n"):
        lines.append(line.rpartition("\r\x1b[K")[2].replace("\x1b", ""))
    return "\n".join(lines)


# -- what is sent -------------------------------------------------------------------------------


@pytest.mark.usefixtures("address")
def test_tools_and_media_become_the_request(server: Scripted, tools: str, tmp_path: Path) -> None:
    image, sound = tmp_path / "a.txt", tmp_path / "b"
    image.write_bytes(PNG)
    sound.write_bytes(WAV)
    options = ["--tools", tools, "--image", str(image), "--image", str(image)]
    options += ["--audio", str(sound), "--system", "s", "--param", "tool_choice=weather"]
    options += ["--param", 'chat_template_kwargs={"enable_thinking": false}']
    assert run("what?", *options) == Exit.OK
    (request,) = server.requests()
    picture = {"type": "image", "media_type": "image/png", "data": PNG}
    assert request.messages == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                picture,
                picture,
                {"type": "audio", "format": "wav", "data": WAV},
                {"type": "text", "text": "what?"},
            ],
        },
    ]
    assert request.chat == {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert request.params == {"n_predict": 2048}


@pytest.mark.usefixtures("address")
def test_a_list_of_functions_is_a_list_of_tools(server: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "functions.json"
    file.write_text(json.dumps([TOOL["function"]]))
    assert run("what?", "--tools", str(file)) == Exit.OK
    assert server.requests()[0].chat == {"tools": [TOOL]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "are not JSON"),
        ("[" * 100_000, "are not JSON"),
        ("{}", "tools are a list of functions, each with a name"),
        ('["weather"]', "tool 1 is not a function with a name"),
        ('[{"name": "a"}, {"type": "function"}]', "tool 2 is not a function with a name"),
        ('[{"type": "web_search"}]', "of type 'web_search': only functions are known"),
    ],
)
def test_a_wrong_file_of_tools_is_one_line(
    text: str, told: str, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "tools.json"
    file.write_text(text)
    assert run("what?", "--tools", str(file)) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"llcuda-client: error: tools {file}")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "--tools", "/nonexistent"], "cannot read tools /nonexistent"),
        (["a", "--image", "/nonexistent"], "cannot read image /nonexistent: No such file"),
        (["a", "--image", "https://h/a.png"], "cannot read image"),
        (["a", "--image", "/dev/null"], "/dev/null is not a PNG, JPEG, WebP or GIF image"),
        (["a", "--audio", "/dev/null"], "/dev/null is not WAV or MP3 audio"),
        (["a", "--raw", "--image", "x"], "--image goes with a chat template"),
        (["a", "--raw", "--tools", "x"], "--tools goes with a chat template"),
        (["a", "--raw", "--param", "tool_choice=auto"], "--param tool_choice goes with a chat"),
        (["a", "--param", "tools=[]"], "--param cannot set tools"),
        (["a", "--think", "maybe"], "invalid choice: 'maybe'"),
        (["a", "--detach", "--think", "show"], "so --think does not go with it"),
        (["--attach", "a", "--image", "x"], "--attach and --image do not go together"),
        (["--delete", "a", "--attach", "b"], "--delete and --attach do not go together"),
        (["--delete", "a", "--chat"], "--delete and --chat do not go together"),
        (["a", "--delete", "b"], "--delete and a prompt do not go together"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str, capsys: Capture) -> None:
    assert run(*arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("tool_choice=wether", "one of none, auto, required, weather, not 'wether'"),
        ("tool_choice=5", "one of none, auto, required, weather, not 5"),
        ("chat_template_kwargs=5", "chat_template_kwargs is a mapping, not 5"),
    ],
)
def test_wrong_options_of_a_chat(param: str, told: str, tools: str, capsys: Capture) -> None:
    assert run("a", "--tools", tools, "--param", param) == Exit.REFUSED
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("address")
def test_an_old_server(server: Scripted, tools: str, capsys: Capture) -> None:
    server.features = []
    assert run("a", "--tools", tools) == Exit.REFUSED
    assert "is of an earlier version: it knows no tools" in capsys.readouterr().err
    assert run("--delete", "a") == Exit.REFUSED
    assert "is of an earlier version: it cannot delete" in capsys.readouterr().err
    assert server.seen == []


# -- what is printed ----------------------------------------------------------------------------


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_a_pipe_gets_the_answer_alone(
    server: Scripted, options: tuple[str, ...], capsys: Capture
) -> None:
    server.answers = [THOUGHTFUL, THOUGHTFUL, CALLING]
    assert run("a", *options) == Exit.OK
    assert capsys.readouterr() == ("It is warm.\n", "")
    assert run("a", "--think", "show", *options) == Exit.OK
    assert capsys.readouterr() == ("It is warm.\n", "thinking:\nLet me see.\n\n")
    assert run("a", *options) == Exit.OK
    assert capsys.readouterr() == ('I look.\nweather {"city": "Oslo"}\ntime {}\n', "")


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_a_terminal_shows_the_reasoning_dimmed(
    server: Scripted, options: tuple[str, ...], screen: FakeTerminal
) -> None:
    server.answers = [THOUGHTFUL]
    assert run("a", *options, on=screen) == Exit.OK
    dim = "[2mLet me see.[0m" if options else "[2mLet me[0m[2m see.[0m"
    assert shown(screen) == f"{dim}\n\nIt is warm.\n"


@pytest.mark.usefixtures("address")
def test_a_terminal_without_colours(
    server: Scripted, screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    server.answers = [THOUGHTFUL, [*THOUGHTFUL, *THOUGHTFUL, *CALLING]]
    assert run("a", on=screen) == Exit.OK
    assert shown(screen) == "thinking:\nLet me see.\n\nIt is warm.\n"
    before = len(shown(screen))
    assert run("a", on=screen) == Exit.OK
    once = "thinking:\nLet me see.\n\nIt is warm.\n"
    assert shown(screen)[before:] == (
        once + once[:-1] + 'I look.\nweather {"city": "Oslo"}\ntime {}\n'
    )


@pytest.mark.usefixtures("address")
def test_hidden_reasoning_is_a_line_that_goes(server: Scripted, screen: FakeTerminal) -> None:
    server.answers = [THOUGHTFUL]
    assert run("a", "--think", "hide", on=screen) == Exit.OK
    assert shown(screen) == "It is warm.\n"
    assert screen.text.count("thinking...") == 1


@pytest.mark.usefixtures("address")
def test_no_channel_commands_the_terminal(server: Scripted, screen: FakeTerminal) -> None:
    tool = ("tool_call", 0, "c", f"n{EVIL}".replace("\n", ""))
    server.answers = [[(REASONING, EVIL), (TEXT, EVIL), (tool, EVIL + "\x1b[31m")]]
    assert run("a", on=screen) == Exit.OK
    text = screen.text
    for ours in ("\r\x1b[K", "\x1b[2m", "\x1b[1m", "\x1b[0m"):
        text = text.replace(ours, "")
    assert not [c for c in text if is_obeyed(c)]


@pytest.mark.usefixtures("address")
def test_json_names_the_channels(server: Scripted, capsys: Capture) -> None:
    server.answers = [[*THOUGHTFUL, *CALLING]] * 2
    assert run("a", "--json") == Exit.OK
    _, *lines, done = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    pieces = "".join(line["text"] for line in lines if line["event"] == "piece")
    assert pieces == "It is warm.I look."
    assert lines[0] == {"event": "reasoning", "sequence": 0, "text": "\nLet me"}
    assert lines[5] == {
        "event": "tool_call",
        "sequence": 5,
        "text": "",
        "index": 0,
        "call_id": "c0",
        "name": "weather",
    }
    calls: list[dict[str, Any]] = [
        {"id": "c0", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"id": "c1", "name": "time", "arguments": "{}"},
    ]
    assert done["tool_calls"] == calls
    assert done["reason"] == "tool_calls"
    assert "reasoning" not in done
    assert run("a", "--json", "--no-stream") == Exit.OK
    (done,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert done["text"] == "It is warm.I look."
    assert done["reasoning"] == "\nLet me see."
    assert done["tool_calls"] == calls


@pytest.mark.usefixtures("address")
def test_certainty_is_of_the_answer(server: Scripted, capsys: Capture) -> None:
    server.answers = [[*THOUGHTFUL, *CALLING]]
    assert run("a", "--certainty") == Exit.OK
    assert capsys.readouterr().out == ('It is warm.I look.\nweather {"city": "Oslo"}\ntime {}\n')


# -- conversations ------------------------------------------------------------------------------


@pytest.mark.usefixtures("address")
def test_the_next_lines_of_a_chat_are_what_tools_return(
    server: Scripted,
    tools: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(PNG)
    lines = f"7 degrees\n/noon\n/image\n/image {image}\nand there?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    server.answers = [CALLING, THOUGHTFUL]
    options = ("--tools", tools, "--image", str(image))
    assert run("where?", "--chat", *options) == Exit.REFUSED  # one command named no file
    first, second, third = (request.messages for request in server.requests())
    assert first is not None
    assert second is not None
    assert third is not None
    picture = {"type": "image", "media_type": "image/png", "data": PNG}
    assert first[0]["content"] == [picture, {"type": "text", "text": "where?"}]
    assert [message["role"] for message in second[1:]] == ["assistant", "tool", "tool"]
    assert second[1]["content"] == "I look."
    assert [call["id"] for call in second[1]["tool_calls"]] == ["c0", "c1"]
    assert [(m["tool_call_id"], m["content"]) for m in second[2:]] == [
        ("c0", "7 degrees"),
        ("c1", "/noon"),
    ]
    assert third[4:] == [
        {"role": "assistant", "content": "It is warm."},
        {"role": "user", "content": [picture, {"type": "text", "text": "and there?"}]},
    ]
    out, err = capsys.readouterr()
    assert out == 'I look.\nweather {"city": "Oslo"}\ntime {}\nIt is warm.\nand there?\n'
    assert "which image? /image FILE" in err


@pytest.mark.usefixtures("address")
def test_what_tools_returned_is_asked_again_after_a_failure(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "refuse\n8 degrees\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    server.answers = [CALLING[:4]]
    assert run("where?", "--chat") == Exit.REFUSED  # of the first failure
    last = server.requests()[-1].messages
    assert last is not None
    assert [message["role"] for message in last] == ["user", "assistant", "tool"]
    assert last[2]["content"] == "8 degrees"


# -- deleting -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("address")
def test_deleting(server: Scripted, capsys: Capture) -> None:
    assert run("--delete", ID) == Exit.OK
    assert capsys.readouterr() == ("deleted\n", "")
    assert run("--delete", ID, "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out) == {"event": "delete", "id": ID}
    assert run("--delete", "other") == Exit.REFUSED
    assert "no such generation (unknown_generation)" in capsys.readouterr().err
    assert server.deleted == [ID, ID, "other"]
