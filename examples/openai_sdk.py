"""Ask with OpenAI's own SDK (pip install openai): llcuda-server is its base URL.

    python examples/openai_sdk.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main(server: str) -> None:
    """Stream one answer."""
    client = OpenAI(base_url=f"http://{server}/v1", api_key="any")
    stream = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "What is a slot?"}], stream=True
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    main(sys.argv[1] if len(sys.argv) > 1 else default)
