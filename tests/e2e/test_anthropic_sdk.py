"""Anthropic's SDK for Python, as it is, against the built-in model in a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Usage
from pydantic import BaseModel

from tests.support.processes import RunningServer, running_server
from tests.support.upstream.scripted_chat import ScriptedChat, scripted_chat, text

#: Any name will do, where one model is served.
MODEL = "claude-opus-4-8"
HELLO: Any = [{"role": "user", "content": "Hello"}]
PATIENCE = 60.0


def client_of(server: RunningServer, **options: Any) -> Anthropic:
    """The SDK as docs/api-anthropic.md has it."""
    options = {"api_key": "any", "max_retries": 0, "timeout": PATIENCE, **options}
    return Anthropic(base_url=f"http://{server.address}", **options)


@pytest.fixture(scope="module")
def client(demo_server: RunningServer) -> Iterator[Anthropic]:
    with client_of(demo_server) as client:
        yield client


def said(message: Any) -> str:
    """The text of a message that is nothing else."""
    (block,) = message.content
    assert block.type == "text"
    found: str = block.text
    return found


def prompt_tokens(message: Any) -> int:
    """Those that were read, and those that a slot held."""
    usage: Usage = message.usage
    return usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models(client: Anthropic) -> None:
    (model,) = client.models.list()
    assert (model.id, model.type, model.max_input_tokens) == ("demo", "model", 2048)
    assert client.models.retrieve("demo") == model
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.error_code == "model_not_found"


def test_a_message(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=6,
        metadata={"user_id": "me"},
        extra_body={"temperature": 0},
    )
    message = raw.parse()
    generation = raw.headers["x-llcuda-generation"]
    assert raw.headers["x-llcuda-ignored"] == "metadata"
    assert message.id == f"msg_{generation}"
    assert message.model == "demo"
    assert message._request_id == raw.headers["x-request-id"]
    assert said(message)
    assert (message.stop_reason, message.stop_sequence) == ("max_tokens", None)
    assert prompt_tokens(message) > 0
    assert message.usage.output_tokens == 6


def test_a_stream_is_the_same_answer(client: Anthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 12}
    asked["extra_body"] = {"temperature": 0}
    message = client.messages.create(**asked)
    kinds = [event.type for event in client.messages.create(**asked, stream=True)]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    with client.messages.stream(**asked) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(texts) > 1
    assert "".join(texts) == said(final) == said(message)
    assert final.stop_reason == message.stop_reason
    assert final.usage.output_tokens == message.usage.output_tokens == 12
    tokens = [
        (one.input_tokens + (one.cache_read_input_tokens or 0))
        for one in (final.usage, message.usage)
    ]
    assert tokens[0] == tokens[1] > 0


def test_system_prompts_and_earlier_turns(client: Anthropic) -> None:
    system: Any = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ]
    long = client.messages.create(model=MODEL, max_tokens=1, system=system, messages=turns)
    short = client.messages.create(model=MODEL, max_tokens=1, messages=HELLO)
    used = [
        one.usage.input_tokens + (one.usage.cache_read_input_tokens or 0) for one in (long, short)
    ]
    assert used[0] > used[1]


def test_tokens_are_counted_as_the_model_reads_them(client: Anthropic) -> None:
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "?"},
    ]
    for messages in (HELLO, turns):
        message = client.messages.create(
            model=MODEL, max_tokens=1, system="Be kind.", messages=messages
        )
        counted = client.messages.count_tokens(model=MODEL, system="Be kind.", messages=messages)
        assert counted.input_tokens == prompt_tokens(message)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model=MODEL, messages=[])


def test_a_stop_sequence(client: Anthropic) -> None:
    message = client.messages.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=50,
        stop_sequences=["it"],
        extra_body={"grammar": 'root ::= "yes, it is"'},
    )
    assert said(message) == "yes, "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "it")


def test_parsed_output(client: Anthropic) -> None:
    class Weather(BaseModel):
        sky: Literal["clear", "cloudy"]
        wind: bool

    message = client.messages.parse(
        model=MODEL, messages=HELLO, max_tokens=100, output_format=Weather
    )
    assert message.parsed_output is not None
    assert message.parsed_output.sky in ("clear", "cloudy")


def test_an_answer_that_has_begun_goes_on(client: Anthropic) -> None:
    begun: Any = [*HELLO, {"role": "assistant", "content": "llcuda is a"}]
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 12, "extra_body": {"temperature": 0}}
    more = client.messages.create(messages=begun, **asked)
    assert not said(more).startswith("llcuda is a")
    assert said(more) != said(client.messages.create(messages=HELLO, **asked))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"extra_body": {"max_tokens": None}}, "max_tokens"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"extra_body": {"nothing": 1}}, "nothing"),
        ({"thinking": {"type": "loud"}}, "thinking.type"),
    ],
)
def test_what_is_wrong_is_named(client: Anthropic, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 1, **changes})
    error = caught.value
    assert error.type == "invalid_request_error"
    assert error.request_id
    body: Any = error.body
    assert body["error"]["details"]["param"] == param
    assert param in (error.api_message or "")


def test_a_prompt_that_is_too_long(client: Anthropic) -> None:
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 2048 "):
        client.messages.create(model=MODEL, messages=long, max_tokens=1)


def test_a_model_that_cannot_see(client: Anthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    seen: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    with pytest.raises(anthropic.BadRequestError, match="takes no images"):
        client.messages.create(model=MODEL, messages=seen, max_tokens=1)
    source = {"type": "url", "url": "https://example.org/a.png"}
    seen[0]["content"][0]["source"] = source
    with pytest.raises(anthropic.BadRequestError, match="fetches nothing"):
        client.messages.create(model=MODEL, messages=seen, max_tokens=1)


def test_the_sdk_of_betas(client: Anthropic) -> None:
    message = client.beta.messages.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=2,
        betas=["context-management-2025-06-27"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    assert message.content[0].type == "text"


def test_async(demo_server: RunningServer) -> None:
    async def main() -> None:
        url = f"http://{demo_server.address}"
        async with AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
            async with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=5) as stream:
                texts = [one async for one in stream.text_stream]
            final = await stream.get_final_message()
            assert "".join(texts) == said(final)
            many = [
                client.messages.create(model=MODEL, messages=HELLO, max_tokens=3) for _ in range(4)
            ]
            assert len(await asyncio.gather(*many)) == 4

    asyncio.run(main())


#: Only the upstream's own chat is scripted, to which thinking goes.
SCRIPTED: dict[str, Any] = {
    "model": MODEL,
    "messages": HELLO,
    "max_tokens": 5,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "low"},
}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[RunningServer, ScriptedChat]]:
    """A server with a token file and room for one request, and what its upstream waits for."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret-of-me name=me concurrent=1 queued=0\n")
    tokens.chmod(0o600)
    with (
        scripted_chat() as script,
        running_server("--upstream", script.url, "--auth-token-file", str(tokens)) as server,
    ):
        script.answers = [([text("a"), text("b"), text("c")], "stop")]
        yield server, script


def test_keys(guarded: tuple[RunningServer, ScriptedChat]) -> None:
    server, _ = guarded
    with (
        client_of(server, api_key="other") as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**SCRIPTED)
    assert caught.value.type == "authentication_error"
    for options in ({"api_key": "secret-of-me"}, {"auth_token": "secret-of-me", "api_key": None}):
        with client_of(server, **options) as client:
            assert said(client.messages.create(**SCRIPTED)) == "abc"


def test_a_request_is_sent_again_when_there_is_room(
    guarded: tuple[RunningServer, ScriptedChat],
) -> None:
    server, script = guarded
    with (
        client_of(server, api_key="secret-of-me") as hasty,
        client_of(server, api_key="secret-of-me", max_retries=5) as client,
    ):
        script.gate.clear()
        with hasty.messages.stream(**SCRIPTED) as stream:
            assert next(iter(stream.text_stream))
            with pytest.raises(anthropic.OverloadedError) as caught:
                hasty.messages.create(**SCRIPTED)
            assert caught.value.type == "overloaded_error"
            assert float(caught.value.response.headers["retry-after-ms"]) > 0
            script.gate.set()
            assert said(client.messages.create(**SCRIPTED)) == "abc"
            assert said(stream.get_final_message()) == "abc"
