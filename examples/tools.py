"""Let the model ask for a function, call it, and give back what it returns.

    python examples/tools.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio

import llcuda_net

TOOLS = [
    {
        "name": "temperature",
        "description": "The temperature of a city now, in degrees Celsius.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    }
]
DEGREES = {"Oslo": 7, "Rome": 21}


async def main(server: str) -> None:
    """Ask, answer what the model asks for, and print what it makes of that."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "How warm is it in Oslo?"}]
    async with llcuda_net.connect(server) as client:
        # With "auto" a model decides by itself; this one must ask.
        answer = await client.complete(
            messages=messages, tools=TOOLS, tool_choice="temperature", n_predict=64
        )
        messages.append(answer.message)
        for call in answer.tool_calls:
            print(f"the model asks for {call.name} {call.arguments}")
            city = json.loads(call.arguments)["city"]
            messages.append(call.reply(f"{DEGREES[city]} degrees"))
        print(await client.complete(messages=messages, n_predict=64))


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
