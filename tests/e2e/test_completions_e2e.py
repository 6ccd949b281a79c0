"""POST /v1/completions with OpenAI's SDK against real servers with the built-in engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from tests.e2e.test_openai_sdk import MODEL, client_of
from tests.support.processes import RunningServer, running_server
from tests.support.upstream.tiny_model import write_tiny_model

PROMPT = "A slot is"


@pytest.fixture(scope="module")
def client(demo_server: RunningServer) -> Iterator[OpenAI]:
    with client_of(demo_server) as client:
        yield client


def test_a_text_goes_on_whole_and_streamed(client: OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=8, temperature=0)
    (choice,) = whole.choices
    assert choice.text
    assert choice.finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    chunks = list(
        client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == choice.text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_several_prompts_with_echo(client: OpenAI) -> None:
    prompts = [PROMPT, "The server"]
    answer = client.completions.create(
        model=MODEL, prompt=prompts, n=2, echo=True, max_tokens=3, temperature=0
    )
    assert [one.index for one in answer.choices] == [0, 1, 2, 3]
    for one in answer.choices:
        assert one.text.startswith(prompts[one.index // 2])
    assert answer.choices[0].text == answer.choices[1].text


def test_log_probabilities_have_a_token_each(client: OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.tokens is not None
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.top_logprobs is not None
    assert [len(one) for one in found.top_logprobs] == [2] * 4
    assert found.text_offset == [sum(map(len, found.tokens[:i])) for i in range(4)]


def test_a_model_without_marks_fills_no_gap(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="def f(", suffix="return x", max_tokens=4)
    assert caught.value.code == "unsupported"


def test_a_gap_is_filled(tmp_path: Path) -> None:
    """The tiny model says nothing sensible, but its prompt is the one that it is to have."""
    model = write_tiny_model(tmp_path / "fills.gguf", fills=True)
    with running_server("--model", str(model)) as server, client_of(server) as client:
        filled = client.completions.create(
            model=MODEL, prompt="a = ", suffix="; b", max_tokens=6, temperature=0
        )
        # As llama.cpp puts the two parts and the model's marks together.
        by_hand = client.completions.create(
            model=MODEL, prompt="<|end|>a = <|user|>; b<|assistant|>", max_tokens=6, temperature=0
        )
    assert filled.choices[0].text == by_hand.choices[0].text
    assert filled.usage is not None
    assert by_hand.usage is not None
    assert filled.usage.prompt_tokens == by_hand.usage.prompt_tokens
