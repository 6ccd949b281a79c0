"""Conversations over HTTP, in memory: what tests ask for, and what they look at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llcuda_net.config.token_file import Users
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener
from tests.support.server.sse_client import send

PATH, RESPONSES = "/v1/conversations", "/v1/responses"
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
USERS = "t name=ann\nu name=bob\n"


@asynccontextmanager
async def running(
    folder: Path, upstream: FakeUpstream | None = None, users: str | None = None
) -> AsyncIterator[MemoryListener]:
    known = None if users is None else Users.parse(users)
    async with keeping(folder, upstream or FakeUpstream(), users=known) as (_, listener):
        yield listener


async def call(
    listener: MemoryListener,
    method: str,
    path: str,
    body: Any = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Any:
    fields = {"Authorization": "Bearer t"} | (headers or {})
    answer = await send(listener, method, path, body, fields)
    found = await answer.json()
    assert answer.status == status, found
    return found


async def begin(listener: MemoryListener, **fields: Any) -> str:
    return str((await call(listener, "POST", PATH, fields))["id"])


async def respond(
    listener: MemoryListener,
    conversation: str,
    text: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Any:
    body = {"input": text, "conversation": conversation, **more}
    return await call(listener, "POST", RESPONSES, body, status, headers)


async def items(listener: MemoryListener, conversation: str, query: str = "?order=asc") -> Any:
    return (await call(listener, "GET", f"{PATH}/{conversation}/items{query}"))["data"]


def texts(listed: Any) -> list[tuple[str, str]]:
    return [(one["role"], one["content"][0]["text"]) for one in listed]


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}
