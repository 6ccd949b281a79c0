"""Streams over HTTP go on after kill -9 of the server: real processes, plain httpx."""

from __future__ import annotations

import json
import signal
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.steady import held_upstream, release
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import generation

MESSAGES = [{"role": "user", "content": "tell me a story"}]
TOKENS = 300
BODY = {
    "model": "any",
    "messages": MESSAGES,
    "max_tokens": TOKENS,
    "temperature": 0,
    "seed": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
}


class _Reader:
    """Reads one answer over as many connections as it takes.

    Attributes:
        ids: of all events so far.
        text: so far.
        done: the stream has come to its end.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.ids: list[str] = []
        self.text = ""
        self.done = False
        self.generation = ""

    def read(self, server: RunningServer, most: int, *, by_key: bool) -> None:
        """Read on for so many events, by the id of the last one, and leave without a word."""
        headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        url = f"http://{server.address}/v1/"
        if by_key:
            asked = ("POST", f"{url}chat/completions")
            headers["Idempotency-Key"] = "a story"
        else:
            asked = ("GET", f"{url}generations/{self.generation}/events")
        body = self.body if by_key else None
        with httpx.stream(*asked, headers=headers, json=body, timeout=PATIENCE) as answer:
            assert answer.status_code == 200, answer.read()
            self.generation = answer.headers["x-llcuda-generation"]
            own = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    own = value
                elif name == "data" and value == "[DONE]":
                    self.done = True
                elif name == "data":
                    document = json.loads(value)
                    assert "error" not in document, document
                    self.ids.append(own)
                    for choice in document["choices"]:
                        self.text += choice["delta"].get("content") or ""
                    most -= 1
                    if not most:
                        return


@pytest.mark.parametrize("engine", ["held", "built-in"])
def test_a_stream_goes_on_after_kill_9(tmp_path: Path, engine: str) -> None:
    held = engine == "held"
    upstream: AbstractContextManager[str] = held_upstream(100) if held else nullcontext("")
    with upstream as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), *(("--upstream", url) if held else ())]
        server = stack.enter_context(running_server(*arguments))
        reader = _Reader(BODY)
        reader.read(server, 40, by_key=True)
        for by_key in (False, True):
            server.stop(signal.SIGKILL)
            server = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
            if held:
                release(url)
            reader.read(server, 50, by_key=by_key)
        reader.read(server, 0, by_key=False)
        assert reader.done
        sequences = [int(id_.split(":")[1]) for id_ in reader.ids]
        assert sequences == list(range(1, len(sequences) + 1))
        assert {id_.split(":")[0] for id_ in reader.ids} == {reader.generation}
        shown = httpx.get(
            f"http://{server.address}/v1/generations/{reader.generation}", timeout=PATIENCE
        ).json()
        assert (shown["state"], shown["text"]) == ("done", reader.text)
        if held:
            assert reader.text == generation(apply_template(MESSAGES), TOKENS)
