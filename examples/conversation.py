"""Go on with a conversation by its last id alone: the server has all that was said.

    python examples/conversation.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000. Nothing but an id is kept between
the two connections, so the second could be another program, on another machine, after a restart of
the server.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net


async def main(server: str) -> None:
    """Ask in the background and leave; come back, read the answer, and ask once more."""
    async with (
        llcuda_net.connect(server) as client,
        client.generate("What is llcuda?", n_predict=64, background=True) as stream,
    ):
        id_ = stream.id
    print(f"left {id_} to the server")

    async with llcuda_net.connect(server) as client:
        async with client.attach(id_) as stream:
            async for piece in stream:
                print(piece, end="", flush=True)
        print()
        answer = await client.complete("What is a slot?", previous=id_, n_predict=64)
        print(f"{answer}\n({answer.usage.get('prompt_tokens')} tokens of conversation were read)")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
