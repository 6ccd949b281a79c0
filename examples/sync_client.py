"""The client without async, as in a script or a notebook.

    python examples/sync_client.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import os
import sys

import llcuda_net.sync


def main(server: str) -> None:
    """Stream one answer, and take another at once."""
    with llcuda_net.sync.connect(server) as client:
        for piece in client.generate("What is llcuda?", n_predict=128):
            print(piece, end="", flush=True)
        print()
        print(client.complete("What is a slot?", n_predict=128))
        print(f"the server answers in {client.ping() * 1e3:.1f} ms")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    main(sys.argv[1] if len(sys.argv) > 1 else default)
