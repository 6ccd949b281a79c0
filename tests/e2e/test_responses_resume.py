"""Responses go on after kill -9 of the server, and are read in pieces by `starting_after`."""

from __future__ import annotations

import json
import signal
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from llcuda_net.server.http.responses.outline import GAP
from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.steady import held_upstream, release

TOKENS = 300
BODY = {
    "model": "any",
    "input": "tell me a story",
    "instructions": "Be long.",
    "max_output_tokens": TOKENS,
    "temperature": 0,
    "seed": 0,
    "ignore_eos": True,
    "stream": True,
}


class _Reader:
    """Reads one response over as many connections as it takes.

    Attributes:
        events: so far, as they came, without what stood between them.
        last: the number of the last one.
        runs: how many runs of the server they are of, by the numbers that are left out.
        done: the stream has come to its end.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.events: list[str] = []
        self.last = -1
        self.runs = 1
        self.id = ""
        self.done = False

    def read(self, server: RunningServer, most: int) -> None:
        """Read on for so many events (0: to the end), and leave without a word."""
        url = f"http://{server.address}/v1/responses"
        body: dict[str, Any] | None = self.body
        method = "POST"
        if self.id:
            method, body = "GET", None
            url += f"/{self.id}?stream=true&starting_after={self.last}"
        with httpx.stream(method, url, json=body, timeout=PATIENCE) as answer:
            assert answer.status_code == 200, answer.read()
            event = ""
            for line in answer.iter_lines():
                event += f"{line}\n"
                if line.startswith("data: "):
                    document = json.loads(line[6:])
                    number = document["sequence_number"]
                    assert number == self.last + 1 or number - self.last > GAP
                    self.runs += number - self.last > GAP
                    self.last = number
                    self.id = self.id or document["response"]["id"]
                if not line and event != "\n":
                    self.events.append(event)
                    event = ""
                    most -= 1
                    if not most:
                        return
                if line.startswith(":"):
                    event = ""
        self.done = True


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("engine", ["held", "built-in"])
def test_a_response_goes_on_after_kill_9(tmp_path: Path, engine: str, background: bool) -> None:
    held = engine == "held"
    upstream: AbstractContextManager[str] = held_upstream(100) if held else nullcontext("")
    with upstream as url, ExitStack() as stack:
        arguments = ["--data-dir", str(tmp_path), *(("--upstream", url) if held else ())]
        server = stack.enter_context(running_server(*arguments))
        reader = _Reader({**BODY, "background": background})
        reader.read(server, 40)
        for _ in range(2):
            server.stop(signal.SIGKILL)
            server = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
            if held:
                release(url)
            reader.read(server, 50)
        reader.read(server, 0)
        assert reader.done
        # the built-in engine may have made all of it before the first kill
        assert reader.runs > (1 if held else 0)
        last = json.loads(reader.events[-1].split("data: ")[1])["response"]
        assert last["usage"]["output_tokens"] == TOKENS
        # Nobody sees that it was cut, now and after one more restart.
        for _ in range(2):
            found = httpx.get(
                f"http://{server.address}/v1/responses/{reader.id}?stream=true", timeout=PATIENCE
            )
            events = [f"{event}\n\n" for event in found.text.split("\n\n") if event]
            assert events == reader.events
            shown = httpx.get(
                f"http://{server.address}/v1/responses/{reader.id}", timeout=PATIENCE
            ).json()
            assert shown == last
            server.stop(signal.SIGKILL)
            server = stack.enter_context(running_server(*arguments, "--port", str(server.port)))
