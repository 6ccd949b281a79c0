"""Servers by what each is known to say of itself."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llcuda_net.batch.targets import facts
from llcuda_net.batch.targets.software import Card, Software, identify

OLLAMA = {
    "/api/version": {"version": "0.12.6"},
    "/api/tags": {"models": [{"name": "m:latest"}]},
    "/api/ps": {"models": [{"name": "m:latest", "context_length": 8192}]},
}


async def found(card: Card, answers: dict[str, Any], **headers: str) -> tuple[Software, list[str]]:
    asked: list[str] = []

    async def ask(path: str, body: Any) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        asked.append(path)
        answer: dict[str, Any] = answers.get(path, {})
        return answer

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await identify(card, named, ask), asked


@pytest.mark.parametrize(
    ("card", "answers", "software"),
    [
        (
            Card("m", "llcuda", context_length=2048, slots=4),
            {"/v1/status": {"server": {"version": "0.1.0"}}},
            Software("llcuda-server", "0.1.0", 4, 2048, "content"),
        ),
        (Card("m", "llcuda"), {}, Software("llcuda-server", text_field="content")),
        (
            Card("m", "llamacpp"),
            {
                "/props": {
                    "default_generation_settings": {"n_ctx": 512},
                    "total_slots": 2,
                    "build_info": "b6000-abc",
                }
            },
            Software("llama-server", "b6000-abc", 2, 512, "content"),
        ),
        (Card("m", "llamacpp"), {}, Software("llama-server", text_field="content")),
        (
            Card("m", "vllm", max_model_len=32768),
            {"/version": {"version": "0.11.0"}},
            Software("vLLM", "0.11.0", None, 32768, "prompt"),
        ),
        (
            Card("m", "sglang", max_model_len=4096),
            {"/get_server_info": {"version": "0.5.3", "max_running_requests": 64}},
            Software("SGLang", "0.5.3", 64, 4096, "prompt"),
        ),
        (Card("m", "library"), OLLAMA, Software("Ollama", "0.12.6", None, 8192)),
        (Card("m:latest", "library"), OLLAMA, Software("Ollama", "0.12.6", None, 8192)),
        (
            Card("m", "library"),
            {**OLLAMA, "/api/ps": {"models": []}},  # it is not loaded
            Software("Ollama", "0.12.6"),
        ),
        (
            Card("m", "organization_owner"),
            {
                "/api/v0/models": {
                    "data": [
                        {"id": "e", "compatibility_type": "gguf", "loaded_context_length": 1},
                        {"id": "m", "compatibility_type": "gguf", "loaded_context_length": 4096},
                    ]
                }
            },
            Software("LM Studio", context=4096),
        ),
        (
            Card("m", "openai"),
            {"/health/readiness": {"status": "healthy", "litellm_version": "1.50.0"}},
            Software("LiteLLM", "1.50.0"),
        ),
        (
            Card("m", "x"),
            {"/info": {"model_id": "m", "version": "3.3.1", "max_total_tokens": 4096}},
            Software("TGI", "3.3.1", None, 4096),
        ),
        (
            Card("m", "me"),
            {"/openapi.json": {"info": {"title": "Some  Server", "version": "0.3"}}},
            Software("Some Server", "0.3"),
        ),
        (
            Card("m", "them"),
            {"/openapi.json": {"info": {"title": "FastAPI", "version": "0.1.0"}}},
            Software("OpenAI-compatible server (them)", known=False),
        ),
        (Card("m"), {}, Software("OpenAI-compatible server", known=False)),
    ],
)
async def test_which_it_is(card: Card, answers: dict[str, Any], software: Software) -> None:
    assert (await found(card, answers))[0] == software


async def test_a_header_says_it_without_a_question() -> None:
    name, asked = await found(Card("m", "vllm"), {}, x_litellm_version="1.108.7")
    assert (name, asked) == (Software("LiteLLM", "1.108.7"), [])


@pytest.mark.parametrize(
    "nonsense", [-3, "x", None, [], {"version": 3}, {"models": 3, "data": "x"}]
)
async def test_what_a_server_says_may_be_anything(nonsense: Any) -> None:
    paths = ["/props", "/api/version", "/api/tags", "/api/ps", "/api/v0/models", "/info"]
    answers = {path: nonsense if isinstance(nonsense, dict) else {"x": nonsense} for path in paths}
    answers["/openapi.json"] = {"info": nonsense}
    card = Card("m", "x", max_model_len=nonsense, context_length=True, slots=-1)
    assert (await found(card, answers))[0] == Software("OpenAI-compatible server (x)", known=False)
    for owner in ("llcuda", "vllm", "sglang"):
        card = Card("m", owner, max_model_len=True, context_length=nonsense, slots=-1)
        software, _ = await found(card, {"/v1/status": {"server": nonsense}})
        assert (software.slots, software.context) == (None, None)


def test_facts_are_completed() -> None:
    told = facts.facts("Ollama", "0.12.6", {"name": "m"})
    Software("Ollama", "9", context=4096).complete(told)
    assert (told["version"], told["context"]) == ("0.12.6", 4096)
    assert "context" not in told["unknown"]
    assert "slots" in told["unknown"]
    told = facts.facts(None, None, {"name": "m"})
    Software("OpenAI-compatible server", known=False).complete(told)
    assert told["software"] is None
