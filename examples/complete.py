"""Continue a text, and take the whole answer at once.

    python examples/complete.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import os
import sys

import trio

import llcuda_net


async def main(server: str) -> None:
    """Send raw text, without a chat template; the same seed gives the same answer."""
    async with llcuda_net.connect(server) as client:
        try:
            result = await client.complete(raw="A slot is", n_predict=24, temperature=0, seed=1)
        except llcuda_net.Overloaded as error:
            sys.exit(f"the server is busy: {error}; try again in {error.retry_after or 1:g} s")
        except llcuda_net.RequestError as error:
            sys.exit(f"the server refused: {error} ({error.code})")
        print(f"A slot is{result.text}")
        print(f"ended by {result.reason}, generation {result.id}, model {result.model}")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
