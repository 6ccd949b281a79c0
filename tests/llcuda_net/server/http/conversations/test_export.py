"""Conversations as files, and what is deleted with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.server.http.conversations import deletion, export
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from tests.support.server.conversations import (
    PATH,
    RESPONSES,
    TOOL,
    begin,
    call,
    items,
    respond,
    running,
    said,
)
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused
from tests.support.server.sse_client import send

TOKEN = {"Authorization": "Bearer t"}


async def file(listener: MemoryListener, id_: str, query: str = "") -> tuple[str, dict[str, str]]:
    answer = await send(listener, "GET", f"{PATH}/{id_}/export{query}", None, TOKEN)
    body = (await answer.body()).decode()
    assert answer.status == 200, body
    return body, answer.headers


async def test_a_conversation_is_a_file_for_people(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    call_ = Channel(TOOL_CALL, 0, "call_1", "f")
    upstream.answer = [("hm", Channel(REASONING)), ("# yes\n", None), ("", call_), ("{}", call_)]
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, title="What/../now?")
        a = await respond(listener, id_, "a", tools=[TOOL])
        await respond(listener, id_, "hidden", tools=[TOOL], instead_of=a["id"])
        output = {"type": "function_call_output", "call_id": "call_1", "output": "```"}
        more = {"previous_response_id": a["id"], "instructions": "be\nshort"}
        body = {"input": [output], "conversation": id_, "tools": [TOOL], **more}
        upstream.answer = [("done", None)]
        await call(listener, "POST", RESPONSES, body)
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        last = {"type": "message", "role": "user", "content": [image]}
        await call(listener, "POST", f"{PATH}/{id_}/items", {"items": [last]})
        text, headers = await file(listener, id_)
        assert headers["content-type"] == "text/markdown; charset=utf-8"
        assert headers["content-disposition"] == 'attachment; filename="what-now.md"'
        head, *parts = text.split("\n\n")
        assert head == "# What/../now?"
        assert parts[1:] == [
            "## User",
            "a",
            "> hm",
            "## Assistant (fake)",
            "# yes",
            "Call of `f`:",
            "```json\n{}\n```",
            "## System",
            "be\nshort",
            "## Tool",
            "````\n```\n````",
            "## Assistant (fake)",
            "done",
            "## User",
            "*[image]*\n",
        ]


async def test_a_conversation_is_a_file_for_programs(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        a = (await respond(listener, id_, "a"))["id"]
        b = (await respond(listener, id_, "b", instead_of=a))["id"]
        text, headers = await file(listener, id_, "?format=json")
        assert headers["content-type"] == "application/json"
        assert headers["content-disposition"] == 'attachment; filename="a.json"'
        document = json.loads(text)
        assert (document["id"], document["active"]) == (id_, b)
        assert [one["id"] for one in document["entries"]] == [b]
        whole = json.loads((await file(listener, id_, "?format=json&versions=all"))[0])
        assert [one["id"] for one in whole["entries"]] == [a, b]
        assert whole["entries"][0]["versions"] == [a, b]
        for wrong in ("?format=pdf", "?versions=all", "?format=json&versions=2", "?x=y"):
            await call(listener, "GET", f"{PATH}/{id_}/export{wrong}", status=400)
        await call(listener, "GET", f"{PATH}/conv_0/export", status=404)


async def test_what_is_too_large_for_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener, items=[said("user", "a" * 100)])
        monkeypatch.setattr(export, "MOST", 100)
        refused = await call(listener, "GET", f"{PATH}/{id_}/export", status=400)
        assert "in pages" in refused["error"]["message"]


async def test_a_conversation_goes_with_its_responses(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_, other = [await begin(listener) for _ in range(2)]
        elsewhere = await call(listener, "POST", RESPONSES, {"input": "a"})
        first = await respond(listener, id_, "b", previous_response_id=elsewhere["id"])
        second = await respond(listener, id_, "c")
        await respond(listener, other, "d", previous_response_id=first["id"])
        gone = await call(listener, "DELETE", f"{PATH}/{id_}?responses=true")
        assert gone == {
            "id": id_,
            "object": "conversation.deleted",
            "deleted": True,
            "responses": {"deleted": 2, "kept": 1},
        }
        await call(listener, "GET", f"{PATH}/{id_}", status=404)
        for made, status in ((elsewhere, 404), (first, 200), (second, 404)):
            await call(listener, "GET", f"{RESPONSES}/{made['id']}", status=status)
        assert len(await items(listener, other)) == 6  # it has what `first` went on from, too
        await call(listener, "DELETE", f"{PATH}/{other}?responses=1", status=400)
        assert "responses" not in await call(listener, "DELETE", f"{PATH}/{other}")
        await call(listener, "GET", f"{RESPONSES}/{first['id']}")


async def test_what_runs_is_cancelled_first(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        made: list[Any] = [await respond(listener, id_, "a", background=True)]
        made.append(await respond(listener, id_, "a", background=True, instead_of=made[0]["id"]))
        gone = await call(listener, "DELETE", f"{PATH}/{id_}?responses=true")
        assert gone["responses"] == {"deleted": 2, "kept": 0}
        assert upstream.active == 0
        for one in made:
            await call(listener, "GET", f"{RESPONSES}/{one['id']}", status=404)


async def test_what_does_not_end_keeps_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "_PATIENCE", 0)
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        made = await respond(listener, id_, "a", background=True)
        refused = await call(listener, "DELETE", f"{PATH}/{id_}?responses=true", status=409)
        assert "try again" in refused["error"]["message"]
        await call(listener, "GET", f"{PATH}/{id_}")
        await call(listener, "GET", f"{RESPONSES}/{made['id']}")
