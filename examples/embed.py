"""Find the text that is nearest in meaning to a question.

    python examples/embed.py [HOST:PORT]

The server is the argument, or LLCUDA_SERVER, or 127.0.0.1:9000.
"""

from __future__ import annotations

import math
import os
import sys

import trio

import llcuda_net

TEXTS = [
    "A slot is one parallel sequence of a model server.",
    "The server listens on port 9000.",
    "A cancelled generation frees its slot at once.",
]


def cosine(a: list[float], b: list[float]) -> float:
    """How alike two vectors are: 1 for the same direction."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


async def main(server: str) -> None:
    """Embed the texts and the question in one request, and compare."""
    async with llcuda_net.connect(server) as client:
        *vectors, question = await client.embed([*TEXTS, "Which port does it use?"])
    scores = [cosine(vector, question) for vector in vectors]
    for score, text in sorted(zip(scores, TEXTS, strict=True), reverse=True):
        print(f"{score:6.3f}  {text}")


if __name__ == "__main__":
    default = os.environ.get("LLCUDA_SERVER", "127.0.0.1:9000")
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else default)
