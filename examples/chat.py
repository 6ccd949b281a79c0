"""Hold a conversation of several questions: each is sent with the conversation so far.

    python examples/chat.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net

QUESTIONS = ("What is llcuda?", "What is a slot?")


async def main(server: str) -> None:
    """Ask the questions one after the other."""
    messages: list[dict[str, str]] = []
    async with llcuda_net.connect(server) as client:
        for question in QUESTIONS:
            print(f"> {question}")
            messages.append({"role": "user", "content": question})
            answer = await client.complete(messages=messages, n_predict=128)
            print(answer)
            messages.append({"role": "assistant", "content": answer.text})


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
