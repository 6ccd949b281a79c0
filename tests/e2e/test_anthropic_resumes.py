"""A streamed message goes on after kill -9 of the server: real processes, plain httpx."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.steady import held_upstream, release
from tools.synthetic.pages import apply_template
from tools.synthetic.tokens import generation

MESSAGES = [{"role": "user", "content": "tell me a story"}]
TOKENS = 200
BODY = {"model": "any", "messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
SAMPLING = {"temperature": 0, "seed": 0}


class _Reader:
    """Reads one message over as many connections as it takes.

    Attributes:
        events: all so far, without pings.
        ids: of those that have one.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.generation = ""

    @property
    def text(self) -> str:
        deltas = [one["delta"] for one in self.events if one["type"] == "content_block_delta"]
        return "".join(delta["text"] for delta in deltas)

    def read(self, server: RunningServer, most: int, *, by_key: bool) -> None:
        """Read on for so many pieces (-1: all), and leave without a word."""
        headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        url = f"http://{server.address}/v1/"
        asked: dict[str, Any] = {
            "method": "GET",
            "url": f"{url}generations/{self.generation}/events",
        }
        if by_key:
            asked = {"method": "POST", "url": f"{url}messages", "json": {**BODY, **SAMPLING}}
            headers["Idempotency-Key"] = "a story"
        with httpx.stream(**asked, headers=headers, timeout=PATIENCE) as answer:
            assert answer.status_code == 200, answer.read()
            self.generation = answer.headers["x-llcuda-generation"]
            for name, value in _lines(answer):
                if name == "id":
                    self.ids.append(value)
                elif name == "data" and (event := json.loads(value))["type"] != "ping":
                    assert event["type"] != "error", event
                    event.pop("llcuda", None)  # how long it took; of a stored one less is known
                    self.events.append(event)
                    most -= event["type"] == "content_block_delta"
                    if not most:
                        return


def _lines(answer: httpx.Response) -> Iterator[tuple[str, str]]:
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        yield name, value


def test_a_message_goes_on_after_kill_9(tmp_path: Path) -> None:
    with held_upstream(60) as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), "--upstream", url]
        server = stack.enter_context(running_server(*arguments))
        reader = _Reader()
        reader.read(server, 30, by_key=True)
        for by_key in (False, True):
            server.stop(signal.SIGKILL)
            server = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
            release(url)
            reader.read(server, 40, by_key=by_key)
        reader.read(server, -1, by_key=False)
        again = _Reader()
        again.generation = reader.generation
        again.read(server, -1, by_key=False)
    assert reader.text == generation(apply_template(MESSAGES), TOKENS)
    kinds = [one["type"] for one in reader.events if one["type"] != "content_block_delta"]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert reader.events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert reader.events[-2]["usage"]["output_tokens"] == TOKENS
    sequences = [int(id_.split(":")[1]) for id_ in reader.ids]
    assert sequences == list(range(1, len(sequences) + 1))
    # And who reads it from its beginning, has the same events with the same ids.
    assert (again.events, again.ids) == (reader.events, reader.ids)
