"""Our own clients with a real server and a scripted upstream: tools, reasoning, images."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llcuda_net
from llcuda_net import sync
from llcuda_net.client.chat.messages import INLINE
from tests.support.client.media import PNG, WAV
from tests.support.processes import PATIENCE, environment, run, running_server
from tests.support.upstream.scripted_chat import (
    ScriptedChat,
    arguments,
    call,
    scripted_chat,
    text,
    thought,
)

CALLS = [
    thought("One city, "),
    thought("one call."),
    text("I look."),
    call(0, "temperature", "call_oslo"),
    arguments(0, '{"city":'),
    arguments(0, ' "Oslo"}'),
]
WARM = [text("It is"), text(" 7 degrees.")]
TOOLS = [
    {
        "name": "temperature",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]
LARGE = PNG + bytes(range(256)) * (4 * INLINE // 256)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[str, ScriptedChat]]:
    with scripted_chat() as script, running_server("--upstream", script.url) as server:
        yield server.address, script


@pytest.fixture
def address(both: tuple[str, ScriptedChat]) -> str:
    return both[0]


@pytest.fixture
def script(both: tuple[str, ScriptedChat]) -> ScriptedChat:
    both[1].asked.clear()
    both[1].answers = [(WARM, "stop")]
    return both[1]


def test_a_conversation_with_tools(address: str, script: ScriptedChat) -> None:
    script.answers = [(CALLS, "tool_calls"), (WARM, "stop")]
    messages = [{"role": "user", "content": "How warm is it in Oslo?"}]
    with sync.connect(address) as client:
        stream = client.generate(messages=messages, tools=TOOLS, tool_choice="temperature")
        pieces = [event for event in stream.events() if isinstance(event, sync.Piece)]
        answer = stream.result
        assert (answer.reason, answer.text, answer.reasoning) == (
            "tool_calls",
            "I look.",
            "One city, one call.",
        )
        (asked,) = answer.tool_calls
        assert (asked.name, json.loads(asked.arguments)) == ("temperature", {"city": "Oslo"})
        kinds = [piece.channel.kind for piece in pieces]
        assert [*dict.fromkeys(kinds)] == ["reasoning", "text", "tool_call"]
        messages += [answer.message, asked.reply("7 degrees")]
        assert client.complete(messages=messages, tools=TOOLS).text == "It is 7 degrees."
        # From within the tool call on: the same pieces, in the same channels.
        first = kinds.index("tool_call") + 1
        again = [e for e in client.attach(stream.id, first).events() if isinstance(e, sync.Piece)]
        assert again == [piece for piece in pieces if piece.sequence >= first]
    first_body, second_body = script.asked
    assert first_body["tools"] == [{"type": "function", "function": TOOLS[0]}]
    assert first_body["tool_choice"] == "required"  # of one tool; llama-server takes no names
    assert second_body["messages"][1]["tool_calls"][0]["id"] == asked.id
    assert second_body["messages"][2]["content"] == "7 degrees"


def test_images_and_audio_arrive_as_they_are(address: str, script: ScriptedChat) -> None:
    """Small ones within the request, large ones by upload."""
    with sync.connect(address) as client:
        client.complete("What is this?", images=[PNG, LARGE], audio=[WAV])
    (body,) = script.asked
    small, large, sound, question = body["messages"][0]["content"]
    for part, data in ((small, PNG), (large, LARGE)):
        encoded = base64.b64encode(data).decode()
        assert part["image_url"]["url"] == f"data:image/png;base64,{encoded}"
    assert base64.b64decode(sound["input_audio"]["data"]) == WAV
    assert question == {"type": "text", "text": "What is this?"}


def test_a_stored_answer_is_deleted(address: str, script: ScriptedChat) -> None:
    with sync.connect(address) as client:
        answer = client.complete("How warm?", tools=TOOLS)
        assert answer.id is not None
        client.delete(answer.id)
        with pytest.raises(llcuda_net.UnknownGeneration):
            client.attach(answer.id)
        with pytest.raises(llcuda_net.UnknownGeneration):
            client.delete(answer.id)


def test_channels_outlive_the_server(tmp_path: Path) -> None:
    with scripted_chat() as script:
        script.answers = [(CALLS, "tool_calls")]
        options = ("--upstream", script.url, "--data-dir", str(tmp_path))
        with running_server(*options) as server, sync.connect(server.address) as client:
            before = client.complete("How warm?", tools=TOOLS)
            server.process.kill()
            server.process.wait(PATIENCE)
        assert before.id is not None
        with running_server(*options) as server, sync.connect(server.address) as client:
            stream = client.attach(before.id)
            assert list(stream) == ["I look."]
            after = stream.result
    for name in ("text", "reasoning", "tool_calls", "reason"):
        assert getattr(after, name) == getattr(before, name)


def test_the_command(address: str, script: ScriptedChat, tmp_path: Path) -> None:
    script.answers = [(CALLS, "tool_calls")]
    tools, image = tmp_path / "tools.json", tmp_path / "image"
    tools.write_text(json.dumps(TOOLS))
    image.write_bytes(LARGE)
    options = ["--server", address, "--tools", str(tools), "--image", str(image)]
    plain = run("client", *options, "How warm?")
    assert (plain.returncode, plain.stdout) == (0, 'I look.\ntemperature {"city": "Oslo"}\n')
    assert plain.stderr == ""
    shown = run("client", *options, "--think", "show", "How warm?")
    assert shown.stderr == "thinking:\nOne city, one call.\n\n"
    lines = run("client", *options, "--json", "How warm?").stdout.splitlines()
    done = json.loads(lines[-1])
    (asked,) = done["tool_calls"]
    assert asked["arguments"] == '{"city": "Oslo"}'
    deleted = run("client", "--server", address, "--delete", done["id"])
    assert (deleted.returncode, deleted.stdout) == (0, "deleted\n")
    gone = run("client", "--server", address, "--attach", done["id"])
    assert gone.returncode == 1


def test_the_example(address: str, script: ScriptedChat) -> None:
    script.answers = [(CALLS, "tool_calls"), (WARM, "stop")]
    example = Path(__file__).parents[2] / "examples" / "tools.py"
    found = subprocess.run(
        [sys.executable, "-W", "error", str(example), address],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        'the model asks for temperature {"city": "Oslo"}',
        "It is 7 degrees.",
    ]
