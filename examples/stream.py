"""Print an answer as it is generated.

    python examples/stream.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net


async def main(server: str) -> None:
    """Stream one answer, then say how long it took."""
    async with llcuda_net.connect(server) as client:
        async with client.generate("What is llcuda?", n_predict=128) as stream:
            async for piece in stream:
                print(piece, end="", flush=True)
        print()
        result = stream.result
        print(f"{result.usage['completion_tokens']} tokens in {result.timings['total']:.0f} ms")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
