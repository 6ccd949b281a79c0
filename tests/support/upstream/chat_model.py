"""A tiny model whose chat template has tools and reasoning.

Its weights are random, so what counts is what it is made to say. A test makes it call a tool by
`tool_choice` "required", whose grammar upstreams enforce, and by a bias for the token that begins a
call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.upstream.tiny_model import write_tiny_model

MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
#: The marks of Hermes and Qwen; short, since each character is a token.
TEMPLATE = """
{%- for tool in tools or [] %}{{ tool.function.name }} {% endfor %}
{%- for m in messages %}<|user|>
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{- m.role }}: {{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": {{
c.function.arguments | tojson }}}</tool_call>{% endfor %}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and enable_thinking %}<think>{% else %}<think></think>{% endif %}
{%- endif %}"""

#: Begins a call at once, wherever one may begin.
CALL_AT_ONCE = [["<tool_call>", 100]]
#: Ends the reasoning soon: some of its random tokens are the mark.
END_REASONING_SOON = [["</think>", 3]]


def tool(name: str, **values: list[Any]) -> dict[str, Any]:
    """A tool whose arguments are each one of some values: whatever says them, they are short."""
    properties = {key: {"enum": found} for key, found in values.items()}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def write_chat_model(path: Path) -> Path:
    """Write the model; return `path`."""
    return write_tiny_model(path, template=TEMPLATE, words=MARKS)
