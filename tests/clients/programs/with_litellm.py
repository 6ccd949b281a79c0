"""LiteLLM as a client. Run as: python FILE BASE_URL SCENARIO …."""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "What is a slot?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def ask(url: str, **more: Any) -> Any:
    """One completion, as docs/clients.md has it."""
    options = {"max_tokens": 12, "temperature": 0, "messages": MESSAGES, "num_retries": 0, **more}
    return litellm.completion(model="openai/demo", api_base=url, api_key="any", **options)


def chat(url: str) -> Any:
    answer = ask(url)
    return {
        "text": answer.choices[0].message.content,
        "tokens": answer.usage.completion_tokens,
        "generation": answer._hidden_params["additional_headers"][
            "llm_provider-x-llcuda-generation"
        ],
    }


def stream(url: str) -> Any:
    return "".join(part.choices[0].delta.content or "" for part in ask(url, stream=True))


def error(url: str) -> Any:
    try:
        ask(url, extra_body={"temprature": 1})
    except Exception as caught:
        return [type(caught).__name__, caught.status_code, str(caught)]  # type: ignore[attr-defined]
    return None


def embeddings(url: str) -> Any:
    found = litellm.embedding(
        model="openai/demo", api_base=url, api_key="any", input=["A slot is busy.", "A port."]
    )
    return [len(one["embedding"]) for one in found.data]


def schema(url: str) -> Any:
    wanted = {
        "type": "object",
        "properties": {"word": {"enum": ["slot", "port"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    strict = {"type": "json_schema", "json_schema": {"name": "w", "schema": wanted, "strict": True}}
    answer = ask(url, max_tokens=60, response_format=strict)
    return json.loads(answer.choices[0].message.content)


def tools(url: str) -> Any:
    answer = ask(url, tools=TOOLS)
    message = answer.choices[0].message
    messages = [
        *MESSAGES,
        message.model_dump(),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
    ]
    again = ask(url, tools=TOOLS, messages=messages)
    return {
        "arguments": message.tool_calls[0].function.arguments,
        "thought": message.reasoning_content,
        "text": again.choices[0].message.content,
    }


def abort(url: str) -> Any:
    count = 0
    for part in ask(url, max_tokens=100, stream=True):
        count += bool(part.choices[0].delta.content)
        if count == 3:
            break
    return count


_, base_url, *scenarios = sys.argv
print(json.dumps({name: globals()[name](base_url) for name in scenarios}))
