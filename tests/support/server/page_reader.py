"""A reader of GET /v1/events that does what the events say, as a page does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import trio

from tests.support.server.memory_server import MemoryListener
from tests.support.server.sse_client import Reply, send


class PageReader:
    """What a page has after the events so far.

    Attributes:
        events: all of them.
        runs, ended: by id, what runs, and what has ended since.
        blocks, open: of each answer that is followed, its final blocks and the open one.
        over: how the answers that are followed ended.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.events: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.blocks: dict[str, list[dict[str, Any]]] = {}
        self.open: dict[str, dict[str, Any]] = {}
        self.over: dict[str, dict[str, Any]] = {}

    async def next(self) -> dict[str, Any] | None:
        """Take one more event; None: the stream is over."""
        event = await self.reply.event()
        if event is None:
            return None
        found: dict[str, Any] = event.json
        self.events.append(found)
        if found.get("snapshot"):
            self.runs.clear()
        self.runs |= {run["id"]: run for run in found.get("runs", ())}
        for end in found.get("ended", ()):
            self.runs.pop(end["id"], None)
            self.ended[end["id"]] = end
        for id_, answer in found.get("answers", {}).items():
            self._grow(id_, answer)
        return found

    def _grow(self, id_: str, answer: dict[str, Any]) -> None:
        if answer.get("reset"):
            self.blocks.pop(id_, None)
            self.open.pop(id_, None)
        blocks = self.blocks.setdefault(id_, [])
        for block in answer.get("blocks", ()):
            assert not blocks or block["n"] == blocks[-1]["n"] + 1
            blocks.append(block)
            self.open.pop(id_, None)
        if "open" in answer:
            open_ = answer["open"]
            if open_ is None:
                self.open.pop(id_, None)
            elif "more" in open_:
                assert self.open[id_]["n"] == open_["n"]
                self.open[id_] = _appended(self.open[id_], open_["more"])
            else:
                self.open[id_] = open_
        if "ended" in answer or "error" in answer:
            assert id_ not in self.over
            self.over[id_] = answer.get("ended") or answer["error"]

    async def until(self, true: Callable[[], Any]) -> None:
        """Take events until something is true."""
        while not true():
            with trio.fail_after(600):
                assert await self.next() is not None, "the stream is over"

    def text(self, id_: str) -> str:
        """What is shown of an answer: the text of its blocks, with bars between them."""
        blocks = [*self.blocks.get(id_, ()), *filter(None, [self.open.get(id_)])]
        return "|".join(
            re.sub("<[^>]*>", "", block.get("html") or block.get("text", "")).strip()
            for block in blocks
        )


def _appended(block: dict[str, Any], more: str) -> dict[str, Any]:
    if "text" in block:
        return {**block, "text": block["text"] + more}
    body, ends = re.fullmatch(r"(.*?)((?:</\w+>\s*)*)", block["html"], re.DOTALL).groups()  # type: ignore[union-attr]
    return {**block, "html": body + more + ends}


async def follow(
    listener: MemoryListener,
    *answers: str,
    headers: Mapping[str, str] | None = None,
    unread: bool = False,
    **query: Any,
) -> PageReader:
    """Open the stream."""
    if answers:
        query["generations"] = ",".join(answers)
    text = "&".join(f"{name}={value}" for name, value in query.items())
    path = f"/v1/events?{text}" if text else "/v1/events"
    return PageReader(await send(listener, "GET", path, None, headers, unread=unread))
