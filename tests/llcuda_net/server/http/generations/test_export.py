"""GET /v1/generations/{id}/export: Markdown and JSON, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.generations.export import markdown
from llcuda_net.storage.records import Switch, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import CHAT, ask, chat, reply, send
from tests.support.storage.records import result

PEOPLE = Users.parse("A name=ann\nB name=bob\nR name=root role=admin\n")
STORED = """\
# What is a slot?

- Model: demo
- Asked: 2023-11-14 22:13:21 UTC
- State: done
- Tokens: 3
- Generation: {id}

## System

Be brief.

## User

What is a slot?

*[image]*

## Assistant

Call of `look`:

```json
{{
  "at": "a *slot*"
}}
```

## Tool

````
```
````

## User

What is a slot?

## Assistant

> Let me
> think.

A **slot**.
"""
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is a slot?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": '{"at":"a *slot*"}'}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "```"},
    {"role": "user", "content": "What is a slot?"},
]


async def export(
    listener: MemoryListener, id_: str, query: str = "", *, token: str = ""
) -> tuple[int, dict[str, str], bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await send(listener, "GET", f"/v1/generations/{id_}/export{query}", None, headers)
    found = {name: answer.headers.get(name, "") for name in ("content-type", "content-disposition")}
    return answer.status, found, await answer.body()


def put(folder: Path, number: int, **changes: Any) -> str:
    store = SqliteStore(folder, write=True)
    store.put([result(number, **changes)])
    store.close()
    return result(number).id


def put_chat(folder: Path) -> str:
    return put(
        folder,
        1,
        request={"messages": MESSAGES, "params": {}},
        log=TokenLog(["Let me\nthink.", "A ", "**slot**.\n"], [1, 2, 3]),
        switches=[Switch(0, "reasoning"), Switch(1, "text")],
        usage={"completion_tokens": 3},
    )


async def test_markdown(tmp_path: Path) -> None:
    id_ = put_chat(tmp_path)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        for query in ("", "?format=markdown"):
            status, headers, body = await export(listener, id_, query)
            assert status == 200
            assert headers == {
                "content-type": "text/markdown; charset=utf-8",
                "content-disposition": 'attachment; filename="what-is-a-slot.md"',
            }
            assert body.decode() == STORED.format(id=id_)


async def test_json_is_what_is_shown(tmp_path: Path) -> None:
    id_ = put_chat(tmp_path)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        status, headers, body = await export(listener, id_, "?format=json")
        shown = await (await send(listener, "GET", f"/v1/generations/{id_}")).json()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["content-disposition"] == 'attachment; filename="what-is-a-slot.json"'
    assert json.loads(body) == shown
    assert body.startswith(b'{\n  "id"')


async def test_of_one_that_runs(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b"))
        upstream.release(2)
        answer = await reply(connection, client)
        (id_,) = answer.generations
        await answer.event()
        await answer.event()
        status, _, body = await export(listener, id_)
        assert status == 200
        assert b"- State: running\n" in body
        assert body.endswith(b"## Assistant\n\nuser: a\n")
        upstream.release(10)
        await answer.all()


async def test_a_prompt_and_an_error(tmp_path: Path) -> None:
    id_ = put(tmp_path, 1, state="failed", error={"code": "internal", "message": "a bug"})
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        body = (await export(listener, id_))[2].decode()
    assert "\n## Prompt\n\n" in body
    assert body.endswith("*It ended with an error: a bug*\n")


async def test_what_is_refused(tmp_path: Path) -> None:
    id_ = put(tmp_path, 1, owner="ann")
    async with keeping(tmp_path, FakeUpstream(), users=PEOPLE) as (_, listener):
        for query, param in (("?format=pdf", "format"), ("?render=html", "render")):
            status, _, body = await export(listener, id_, query, token="A")
            error = json.loads(body)["error"]
            assert (status, error["param"]) == (400, param), error
        # What is somebody else's is not there.
        for token, expected in (("A", 200), ("B", 404), ("R", 200)):
            assert (await export(listener, id_, token=token))[0] == expected
        assert (await export(listener, "nothing", token="A"))[0] == 404


@pytest.mark.parametrize("arguments", ["{", "[" * 100_000, "\ud800"])
def test_arguments_that_are_no_json_are_as_they_came(arguments: str) -> None:
    document = {
        "id": "x",
        "created": 0.5,
        "model": "m",
        "state": "done",
        "tokens": 1,
        "request": {"prompt": [1, 2]},
        "reasoning": None,
        "text": "",
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}],
        "error": None,
    }
    text = markdown(document)
    assert text.startswith("# [2 token ids]\n")
    assert text.endswith(f"Call of `f`:\n\n```json\n{arguments}\n```\n")
