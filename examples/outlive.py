"""Read an answer over HTTP, kill -9 its server in the middle, start that again, and read on.

    python examples/outlive.py

It starts and kills a server of its own. What makes the stream go on is in `events`: the same
request again, with the same Idempotency-Key, and the id of the last event in Last-Event-ID.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import httpx

BODY = {
    "model": "demo",
    "messages": [{"role": "user", "content": "What is llcuda?"}],
    "stream": True,
    "temperature": 0,
    # So many candidates beside each token, or the tiny model would be done before it is killed.
    "n_probs": 1000,
}


def events(url: str, key: str, last: str) -> Iterator[tuple[str, str]]:
    """Each event's id and text, from the one behind `last` on; "": from the first."""
    headers = {"Idempotency-Key": key, **({"Last-Event-ID": last} if last else {})}
    with httpx.stream("POST", url, json=BODY, headers=headers, timeout=120) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                last = value
            elif name == "data" and value != "[DONE]":
                for choice in json.loads(value)["choices"]:
                    yield last, choice["delta"].get("content") or ""


def start(port: int, folder: str) -> tuple[subprocess.Popen[str], str]:
    """A server that keeps its answers in this folder, and its address."""
    command = ["-m", "llcuda_net.cli.server", "--port", str(port), "--log-level", "error"]
    print(f"$ llcuda-server --port {port}")
    server = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LLCUDA_DATA_DIR": folder, "LLCUDA_STORE": "sqlite"},
    )
    assert server.stdout is not None
    return server, server.stdout.readline().split()[-1]


def main() -> None:
    """Show it."""
    with tempfile.TemporaryDirectory() as folder:
        server, address = start(0, folder)
        url = f"http://{address}/v1/chat/completions"
        ids: list[str] = []
        try:
            try:
                for last, text in events(url, "my question", ""):
                    print(text, end="", flush=True)
                    ids.append(last)
                    if len(ids) == 10:
                        print(f"\n$ kill -9 {server.pid}")
                        server.kill()
            except httpx.TransportError as error:
                print(f"\nafter {len(ids)} events: {error}")
            server.communicate()
            server, _ = start(int(address.rpartition(":")[2]), folder)
            for last, text in events(url, "my question", ids[-1]):
                print(text, end="", flush=True)
                ids.append(last)
        finally:
            server.terminate()
            server.communicate()
    numbers = [int(one.split(":")[1]) for one in ids]
    assert numbers == list(range(1, len(ids) + 1))
    print(f"\nevents 1 to {len(ids)}, none missing, none twice")


if __name__ == "__main__":
    main()
