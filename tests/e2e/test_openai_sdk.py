"""OpenAI's SDK for Python, as it is, against the built-in model in a real server."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI
from pydantic import BaseModel

from tests.support.processes import RunningServer, running_server
from tests.support.upstream.scripted_chat import ScriptedChat, scripted_chat, text

#: Any name will do, where one model is served.
MODEL = "gpt-4o"
HELLO: Any = [{"role": "user", "content": "Hello"}]
PATIENCE = 60.0


def client_of(server: RunningServer, **options: Any) -> OpenAI:
    """The SDK as the README has it."""
    options = {"api_key": "any", "max_retries": 0, "timeout": PATIENCE, **options}
    return OpenAI(base_url=f"http://{server.address}/v1", **options)


@pytest.fixture(scope="module")
def client(demo_server: RunningServer) -> Iterator[OpenAI]:
    with client_of(demo_server) as client:
        yield client


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object) == ("demo", "model")
    extra = client.models.retrieve("demo").model_extra
    assert extra is not None
    assert (extra["context_length"], extra["state"]) == (2048, "loaded")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_a_chat(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_tokens=6, temperature=0, user="me"
    )
    answer = raw.parse()
    generation = raw.headers["x-llcuda-generation"]
    assert raw.headers["x-llcuda-ignored"] == "user"
    assert answer.id == f"chatcmpl-{generation}"
    assert answer.model == "demo"
    assert answer._request_id
    (choice,) = answer.choices
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def test_a_stream_is_the_same_answer(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_the_sdks_own_accumulator_takes_the_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=HELLO,
        logprobs=True,
        top_logprobs=2,
        extra_body={"grammar": 'root ::= "yes, it is"'},
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    choice = final.choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert choice.message.content == "yes, it is"
    assert b"".join(bytes(t.bytes or []) for t in tokens).decode() == choice.message.content
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_choices(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 6, "seed": 3}
    answer = client.chat.completions.create(**asked, n=3)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18
    again: list[list[str]] = [[], [], []]
    for chunk in client.chat.completions.create(**asked, n=3, stream=True):
        for choice in chunk.choices:
            again[choice.index].append(choice.delta.content or "")
    assert all("".join(parts) for parts in again)


def test_parsed_output(client: OpenAI) -> None:
    class Weather(BaseModel):
        sky: Literal["clear", "cloudy"]
        wind: bool

    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Weather)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None
    assert parsed.sky in ("clear", "cloudy")
    answer_object = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=30,
        response_format={"type": "json_object"},
    )
    assert (answer_object.choices[0].message.content or "").lstrip().startswith("{")


def test_parameters_of_llama_server(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        extra_body={"n_predict": 3, "top_k": 1, "grammar": 'root ::= "yes"'},
    )
    assert answer.choices[0].message.content == "yes"


def test_embeddings(client: OpenAI) -> None:
    texts = ["the first text", "another one"]
    coded = client.embeddings.create(model=MODEL, input=texts)
    plain = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert [one.index for one in plain.data] == [0, 1]
    for one, other in zip(coded.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert coded.usage.prompt_tokens > 2
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input=texts[0], encoding_format="base64"
    )
    data = raw.http_response.json()["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(base64.b64decode(data)) // 4}f", base64.b64decode(data)))
    ids = client.embeddings.create(model=MODEL, input=[[1, 2, 3], [4, 5]])
    assert len(ids.data) == 2
    assert ids.usage.prompt_tokens == 5
    dimensions = len(plain.data[0].embedding)
    assert client.embeddings.create(model=MODEL, input="a", dimensions=dimensions).data
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="a", dimensions=3)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"temperature": -1}, "temperature", "invalid_request"),
        ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_request"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_request"),
        ({"extra_headers": {"x-llcuda-level": "iron"}}, "x-llcuda-level", "invalid_request"),
        ({"n": 1000}, "n", "invalid_request"),
    ],
)
def test_what_is_wrong_is_named(
    client: OpenAI, body: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **body})
    error = caught.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert error.request_id


def test_our_options_are_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=3,
        service_tier="flex",
        extra_headers={"x-llcuda-level": "memory", "x-llcuda-deadline": "60"},
    )
    assert raw.parse().service_tier == "flex"
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=1500,
            extra_body={"ignore_eos": True},
            extra_headers={"x-llcuda-timeout": "0.001"},
        )
    assert caught.value.status_code == 504
    assert caught.value.code == "timeout"


def test_async(demo_server: RunningServer) -> None:
    async def run() -> None:
        async with AsyncOpenAI(
            base_url=f"http://{demo_server.address}/v1", api_key="any", max_retries=0
        ) as client:

            async def ask(number: int) -> str:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=5, seed=number, stream=True
                )
                parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
                return "".join(parts)

            texts = await asyncio.gather(*(ask(number) for number in (1, 2, 3, 4)))
            assert all(texts)
            vectors = await client.embeddings.create(model=MODEL, input="a")
            assert vectors.data[0].embedding
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=0)

    asyncio.run(run())


def test_a_client_that_has_no_time(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        # The model is fast; the answer is long enough all the same, being read as a whole.
        client.with_options(timeout=0.005).chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=2000, extra_body={"ignore_eos": True}
        )


# -- with a token file ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningServer, ScriptedChat]]:
    """A server that lets each user run one request, and none wait."""
    path: Path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("secret-of-ann name=ann concurrent=1 queued=0\n", encoding="utf-8")
    with scripted_chat() as script:
        script.answers = [([text("one"), text(" two")], "stop")]
        options = ("--upstream", script.url, "--auth-token-file", str(path), "--lenient")
        with running_server(*options) as server:
            yield server, script


def test_a_key_that_is_wrong(guarded: tuple[RunningServer, ScriptedChat]) -> None:
    with client_of(guarded[0]) as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_a_request_is_sent_again_when_there_is_room(
    guarded: tuple[RunningServer, ScriptedChat],
) -> None:
    server, script = guarded
    refused: list[dict[str, str]] = []

    def look(response: Any) -> None:
        if response.status_code == 429:
            refused.append(dict(response.headers))
            script.gate.set()

    hooks = DefaultHttpxClient(event_hooks={"response": [look]})
    ann: dict[str, Any] = {"api_key": "secret-of-ann"}
    # Only the upstream's own chat is scripted, to which reasoning goes.
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "reasoning_effort": "low"}
    script.gate.clear()
    with (
        client_of(server, **ann) as first,
        client_of(server, **ann, max_retries=50, http_client=hooks) as second,
    ):
        stream = first.chat.completions.create(**asked, stream=True)
        beginning = next(stream)
        answer = second.chat.completions.create(**asked)
        rest = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert beginning.choices[0].delta.content == "one"
    assert "".join(rest) == " two"
    assert answer.choices[0].message.content == "one two"
    assert 0 < int(refused[0]["retry-after-ms"]) <= 60_000
    assert 0 < int(refused[0]["retry-after"]) <= 60


def test_no_retry_no_second_try(guarded: tuple[RunningServer, ScriptedChat]) -> None:
    server, script = guarded
    script.gate.clear()
    with client_of(server, api_key="secret-of-ann") as client:
        asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "reasoning_effort": "low"}
        with client.chat.completions.create(**asked, stream=True) as stream:
            next(stream)
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**asked)
            script.gate.set()
            assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"
    assert caught.value.code == "rate_limit_exceeded"


def test_lenient(guarded: tuple[RunningServer, ScriptedChat]) -> None:
    with client_of(guarded[0], api_key="secret-of-ann", max_retries=20) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, max_tokens=3, extra_body={"xyzzy": 1}
        )
    assert raw.headers["x-llcuda-ignored"] == "xyzzy"
