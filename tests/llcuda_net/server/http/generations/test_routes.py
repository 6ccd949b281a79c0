"""The generations of a user over HTTP: listed, shown, cancelled."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.server.http.generations.view import contents
from llcuda_net.storage.records import Switch
from tests.support.generations import generation_of
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    all_quiet,
    paused,
    serving,
)
from tests.support.server.sse_client import CHAT, ask, chat, post, reply, send


async def _get(listener: MemoryListener, path: str, status: int = 200) -> Any:
    answer = await send(listener, "GET", f"/v1/generations{path}")
    assert answer.status == status
    return await answer.json()


async def test_they_are_listed_in_pages_newest_first(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        assert await _get(listener, "") == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }
        ids = []
        for number in range(5):
            answer = await post(listener, chat(f"a {number}", stream=False))
            ids += answer.generations
            await answer.body()
        page = await _get(listener, "?limit=2")
        assert [one["id"] for one in page["data"]] == ids[:2:-1]
        assert page["has_more"]
        assert page["data"][0]["state"] == "done"
        page = await _get(listener, f"?limit=3&after={page['last_id']}")
        assert [one["id"] for one in page["data"]] == ids[2::-1]
        assert not page["has_more"]
        assert not (await _get(listener, "?state=failed"))["data"]
        for wrong in ("?limit=0", "?limit=x", "?limit=1000000", "?state=lost"):
            await _get(listener, wrong, 400)
        await _get(listener, "?after=nothing", 404)


async def test_one_is_shown_as_it_is(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b"))
        waiting, other = await ask(listener, "POST", CHAT, chat("c"))
        upstream.release(2)
        answer = await reply(connection, client)
        (id_,) = answer.generations
        await answer.event()
        await answer.event()
        shown = await _get(listener, f"/{id_}")
        assert (shown["state"], shown["text"], shown["tokens"]) == ("running", "user: a", 2)
        assert shown["usage"] is shown["error"] is shown["finish_reason"] is None
        queued = (await reply(waiting, other)).generations[0]
        shown = await _get(listener, f"/{queued}")
        assert (shown["state"], shown["queue"]["position"]) == ("queued", 1)
        upstream.release(10)
        await answer.all()
        shown = await _get(listener, f"/{id_}")
        assert (shown["state"], shown["text"]) == ("done", "user: a b")
        assert (shown["finish_reason"], shown["model"]) == ("stop", "fake")
        assert shown["usage"]["completion_tokens"] == 3
        await other.aclose()


async def test_looking_at_one_is_no_reading_of_it(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        connection, client = await ask(
            listener, "POST", CHAT, chat("a b"), {"Idempotency-Key": "one"}
        )
        (id_,) = (await reply(connection, client)).generations
        await client.aclose()
        for _ in range(4):
            await trio.sleep(7)
            assert (await _get(listener, f"/{id_}"))["state"] == "running"
        await trio.sleep(7)
        await all_quiet(server, upstream, listener)


async def test_one_is_cancelled_and_its_readers_are_told(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b"))
        upstream.release()
        answer = await reply(connection, client)
        await answer.event()
        (id_,) = answer.generations
        for _ in range(2):  # the second time it is over already
            cancelled = await send(listener, "POST", f"/v1/generations/{id_}/cancel")
            assert (await cancelled.json())["state"] == "cancelled"
        (event,) = await answer.all()
        assert event.json["error"]["code"] == "cancelled"
        await wait_all_tasks_blocked()
        await all_quiet(server, upstream, listener)


async def test_one_is_deleted_when_it_is_over_and_no_retry_gets_it(
    autojump_clock: object,
) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, client = await ask(
            listener, "POST", CHAT, chat("a b"), {"x-stainless-retry-count": "0"}
        )
        (id_,) = (await reply(connection, client)).generations
        path = f"/v1/generations/{id_}"
        assert (await send(listener, "DELETE", path)).status == 400  # it still runs
        await client.aclose()
        upstream.release(20)
        await trio.sleep(1)
        gone = await (await send(listener, "DELETE", path)).json()
        assert gone == {"id": id_, "object": "generation.deleted", "deleted": True}
        assert (await send(listener, "DELETE", path)).status == 404
        assert (await send(listener, "GET", path)).status == 404
        retry = await post(listener, chat("a b"), {"x-stainless-retry-count": "1"})
        assert retry.generations != [id_]
        await retry.all()


async def test_there_is_no_such_generation(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        for method, end in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            answer = await send(listener, method, f"/v1/generations/none%0d%0a{end}")
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "generation_not_found"


@pytest.mark.parametrize("visible", range(7))
def test_channels_are_apart_as_far_as_they_may_be_seen(visible: int) -> None:
    one = generation_of(
        ["t", "r", "u", "x", "y", "z"],
        switches=[
            Switch(1, "reasoning"),
            Switch(2, "text"),
            Switch(3, "tool_call", 0, "c0", "f"),
            Switch(5, "tool_call", 1, "c1", "g"),
        ],
    )
    one.visible = visible
    found = contents(one)
    assert found["text"] == "t"[:visible] + ("u" if visible > 2 else "")
    assert found["reasoning"] == ("r" if visible > 1 else None)
    functions = [call["function"] for call in found["tool_calls"]]
    calls = [function["name"] + function["arguments"] for function in functions]
    told = {4: ["fx"], 5: ["fxy"], 6: ["fxy", "gz"]}
    assert calls == told.get(visible, [])
