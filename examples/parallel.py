"""Send many questions at once over one connection.

    python examples/parallel.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000. Each question has its own stream;
the server runs as many at once as it has slots, and queues the others.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net

WORDS = ("llcuda", "a slot", "a stream", "a session", "a generation", "the journal")


async def ask(client: llcuda_net.Client, word: str) -> None:
    """One question; its answer is printed when it is complete."""
    result = await client.complete(f"What is {word}?", n_predict=96)
    waited = result.timings.get("queue", 0.0)
    print(f"{word} (waited {waited:.0f} ms): {result.text.strip()}", flush=True)


async def main(server: str) -> None:
    """All at the same time."""
    async with llcuda_net.connect(server) as client, trio.open_nursery() as nursery:
        for word in WORDS:
            nursery.start_soon(ask, client, word)


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
