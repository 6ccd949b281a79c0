"""LangChain with `langchain-openai`. Run as: python FILE BASE_URL SCENARIO …."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "What is a slot?"


class Word(BaseModel):
    """What the model is to fill in."""

    word: Literal["slot", "port"]
    sure: bool


@tool  # type: ignore[untyped-decorator]
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def model(url: str, **more: Any) -> Any:
    """A model as docs/clients.md has it."""
    options = {"model": "demo", "temperature": 0, "max_tokens": 12, "max_retries": 0, **more}
    return ChatOpenAI(base_url=url, api_key="any", **options)


def chat(url: str) -> Any:
    answer = model(url).invoke(QUESTION)
    return {"text": answer.content, "tokens": answer.usage_metadata["output_tokens"]}


def stream(url: str) -> Any:
    whole: Any = None
    for chunk in model(url, stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return {"text": whole.content, "tokens": whole.usage_metadata["output_tokens"]}


def error(url: str) -> Any:
    try:
        model(url, extra_body={"temprature": 1}).invoke(QUESTION)
    except Exception as caught:
        return [type(caught).__name__, str(caught)]
    return None


def embeddings(url: str) -> Any:
    # By default it sends token ids of OpenAI's own tokenizer.
    client = OpenAIEmbeddings(
        base_url=url, api_key="any", model="demo", check_embedding_ctx_length=False
    )
    return [len(one) for one in client.embed_documents(["A slot is busy.", "A port."])]


def structured(url: str) -> Any:
    found = model(url, max_tokens=60).with_structured_output(Word, method="json_schema")
    return found.invoke(QUESTION).model_dump()


def tools(url: str) -> Any:
    bound = model(url, model="scripted").bind_tools([get_weather])
    messages: list[Any] = [HumanMessage("What is the weather in Oslo?")]
    answer = bound.invoke(messages)
    messages.append(answer)
    for call in answer.tool_calls:
        messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
    return {
        "calls": [call["args"] for call in answer.tool_calls],
        "text": bound.invoke(messages).content,
    }


def structured_by_a_tool(url: str) -> Any:
    found = model(url, model="scripted").with_structured_output(Word, method="function_calling")
    return found.invoke(QUESTION).model_dump()


def abort(url: str) -> Any:
    count = 0
    for chunk in model(url, max_tokens=100).stream(QUESTION):
        count += bool(chunk.content)
        if count == 3:
            break
    return count


_, base_url, *scenarios = sys.argv
print(json.dumps({name: globals()[name](base_url) for name in scenarios}))
