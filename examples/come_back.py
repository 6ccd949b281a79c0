"""Start an answer, leave it to the server, and read it later over another connection.

    python examples/come_back.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000. A connection that is merely lost
needs none of this: the client makes another, and goes on where it stopped.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net


async def main(server: str) -> None:
    """Leave after the first piece; then read all of it, as any client could that has the id."""
    async with llcuda_net.connect(server) as client:
        async with client.generate(
            "What is a slot?", n_predict=96, on_disconnect="continue"
        ) as stream:
            first = await anext(stream)
            await stream.detach()
        print(f"left generation {stream.id} after {first!r}")

    async with llcuda_net.connect(server, on_note=print) as client:
        async with client.attach(stream.id) as again:
            async for piece in again:
                print(piece, end="", flush=True)
        print(f"\nended by {again.result.reason}")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
