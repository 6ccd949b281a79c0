"""LlamaIndex with its class for OpenAI-like servers. Run as: python FILE BASE_URL SCENARIO …."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

MESSAGES = [ChatMessage(role="user", content="What is a slot?")]


class Word(BaseModel):
    """What the model is to fill in."""

    word: Literal["slot", "port"]
    sure: bool


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def model(url: str, **more: Any) -> Any:
    """A model as docs/clients.md has it."""
    options: dict[str, Any] = {
        "model": "demo",
        "temperature": 0,
        "max_tokens": 12,
        "max_retries": 0,
        "context_window": 2048,
        "is_chat_model": True,
        "is_function_calling_model": True,
        **more,
    }
    return OpenAILike(api_base=url, api_key="any", **options)


def chat(url: str) -> Any:
    answer = model(url).chat(MESSAGES)
    return {"text": answer.message.content, "tokens": answer.raw.usage.completion_tokens}


def stream(url: str) -> Any:
    return "".join(part.delta or "" for part in model(url).stream_chat(MESSAGES))


def complete(url: str) -> Any:
    return str(model(url).complete("What is a slot?"))


def error(url: str) -> Any:
    try:
        model(url, additional_kwargs={"extra_body": {"temprature": 1}}).chat(MESSAGES)
    except Exception as caught:
        return [type(caught).__name__, str(caught)]
    return None


def embeddings(url: str) -> Any:
    client = OpenAILikeEmbedding(model_name="demo", api_base=url, api_key="any")
    return [len(one) for one in client.get_text_embedding_batch(["A slot is busy.", "A port."])]


def tools(url: str) -> Any:
    weather = FunctionTool.from_defaults(fn=get_weather)
    answer = model(url, model="scripted").predict_and_call([weather], "The weather in Oslo?")
    return str(answer)


def structured(url: str) -> Any:
    strict = model(url, model="scripted", should_use_structured_outputs=True, max_tokens=60)
    return strict.as_structured_llm(Word).chat(MESSAGES).raw.model_dump()


def abort(url: str) -> Any:
    count = 0
    for part in model(url, max_tokens=100).stream_chat(MESSAGES):
        count += bool(part.delta)
        if count == 3:
            break
    return count


_, base_url, *scenarios = sys.argv
print(json.dumps({name: globals()[name](base_url) for name in scenarios}))
