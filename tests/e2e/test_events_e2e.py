"""The events of a page go on after kill -9 of the server: real processes, plain httpx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from llcuda_net.server.http.markdown.blocks import text_blocks
from tests.support.processes import PATIENCE, RunningServer, running_server
from tests.support.upstream.storyteller import Hold, pieces, storyteller

STORY = """# A story

It was *late*, and the formula $a_1 + b_2$ was on the wall.

- one
- two

```python
print("one")

print("two")
```

| a | b |
|---|---|
| 1 | 2 |

The end, **at last**.
"""


class _Page:
    """Reads an answer over as many streams as it takes."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.blocks: list[dict[str, Any]] = []
        self.epoch = 0
        self.ended: dict[str, Any] | None = None
        self.runs: set[str] = set()

    def read(self, server: RunningServer, blocks: int | None = None) -> None:
        """Read until there are so many blocks (None: to its end), and leave without a word."""
        asked = f"{self.id}:{len(self.blocks)}:{self.epoch}"
        url = f"http://{server.address}/v1/events?generations={asked}"
        with httpx.stream("GET", url, timeout=PATIENCE) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self._take(json.loads(line[6:]))
                if self.ended or (blocks is not None and len(self.blocks) >= blocks):
                    return
        raise AssertionError("the stream is over")

    def _take(self, event: dict[str, Any]) -> None:
        self.runs |= {run["id"] for run in event.get("runs", ())}
        told = event.get("answers", {}).get(self.id, {})
        assert "reset" not in told
        self.epoch = told.get("epoch", self.epoch)
        for block in told.get("blocks", ()):
            assert block["n"] == len(self.blocks)
            self.blocks.append(block)
        self.ended = told.get("ended", self.ended)


def test_the_blocks_go_on_after_a_kill(tmp_path: Path) -> None:
    cuts = (11, 60, 110, 150, 200)
    holds = [Hold() for _ in cuts]
    told: list[str | Hold] = []
    for begin, end, hold in zip((0, *cuts), (*cuts, None), (*holds, None), strict=True):
        told += [*pieces(STORY[begin:end], 3), *([hold] if hold else [])]
    with storyteller() as teller:
        teller.tell("tell me", *told)
        options = ("--upstream", teller.url, "--data-dir", str(tmp_path))
        page = _Page("")
        for cut, hold in zip(cuts, holds, strict=True):
            with running_server(*options, LLCUDA_STORE="sqlite") as server:
                if not page.id:
                    body = {"model": "m", "input": "tell me", "background": True}
                    asked = httpx.post(f"http://{server.address}/v1/responses", json=body)
                    page.id = asked.raise_for_status().json()["id"]
                page.read(server, len(text_blocks(STORY[:cut])) - 1)
                server.process.kill()
            hold.set()
        with running_server(*options, LLCUDA_STORE="sqlite") as server:
            page.read(server)
    assert page.blocks == text_blocks(STORY)
    assert page.ended is not None
    assert page.ended["state"] == "done"
    assert page.runs == {page.id.removeprefix("resp_")}
