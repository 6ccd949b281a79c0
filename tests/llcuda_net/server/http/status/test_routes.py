"""GET /v1/status: its keys, who sees what, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.openapi.status import StatusDocument
from llcuda_net.telemetry.shortened import MOST_BYTES
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, serving, status
from tests.support.server.sse_client import CHAT, send
from tests.support.upstream.scripted_upstream import Talker, backends

ASKED = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


async def get(
    listener: MemoryListener, query: str = "", token: str = ""
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    reply = await send(listener, "GET", f"/v1/status{query}", headers=headers)
    return reply.status, await reply.json()


async def test_it_has_what_a_report_has_and_more(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        await send(listener, "POST", CHAT, ASKED)
        await trio.sleep(2)
        code, found = await get(listener)
        report = await status(listener)
        assert code == 200
        assert report.keys() <= found.keys()
        assert found.keys() - report.keys() == {
            *("object", "at", "admin", "sample", "phases", "failovers", "changes"),
        }
        assert (found["object"], found["admin"]) == ("status", True)
        assert found["upstreams"] == report["upstreams"]
        assert found["phases"]["all"]["requests"] == 1
        msgspec.convert(found, StatusDocument)


async def test_the_last_two_minutes_where_asked(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        await trio.sleep(10.5)
        _, found = await get(listener, "?history=true")
        assert found["history"]["seconds"] == 1
        assert len(found["history"]["samples"]) == 10
        assert found["history"]["samples"][-1] == found["sample"]
        msgspec.convert(found, StatusDocument)
        assert "history" not in (await get(listener, "?history=false"))[1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?history=1", "history is true or false, not '1'"),
        ("?days=3", "there is no parameter 'days'; there is: history"),
    ],
)
async def test_what_is_refused(autojump_clock: object, query: str, message: str) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        code, found = await get(listener, query)
        assert (code, found["error"]["message"]) == (400, message)
        assert found["error"]["param"] == query[1:].partition("=")[0]


async def test_who_has_no_token_is_refused(autojump_clock: object) -> None:
    users = Users.parse("adm name=root role=admin\neve name=eve\n")
    async with serving(FakeUpstream(), users=users) as (_, listener):
        assert (await get(listener))[0] == 401
        assert [(await get(listener, token=one))[1]["admin"] for one in ("adm", "eve")] == [1, 0]


async def test_the_store_for_admins_and_for_others(tmp_path: Path) -> None:
    users = Users.parse("adm name=root role=admin\neve name=eve\n")
    async with keeping(tmp_path, FakeUpstream(), users=users) as (storage, listener):
        reply = await send(listener, "POST", CHAT, ASKED, headers={"Authorization": "Bearer eve"})
        assert reply.status == 200
        await reply.body()
        storage.damage.append("a page of the store is damaged")
        store = (await get(listener, token="adm"))[1]["store"]
        assert store["sizes"].keys() == {"journal", "transient", "results", "derived", "objects"}
        assert all(store["sizes"][name] > 0 for name in ("journal", "results", "objects"))
        assert store["free"] > 0
        assert store["journal_segments"] == 1
        assert store["search_behind"] in (0, 1)
        assert (store["results"], store["damage"]) == (1, ["a page of the store is damaged"])
        own = (await get(listener, token="eve"))[1]["store"]
        assert own.keys() & {"sizes", "free", "search_behind"} == set()
        assert own["results"] == 1


async def test_files_are_looked_at_once_for_all_who_watch(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (storage, listener):
        looks = 0
        usage = storage.disk_usage

        async def counted() -> tuple[dict[str, int], int]:
            nonlocal looks
            looks += 1
            return await usage()

        storage.disk_usage = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(get, listener)
        assert looks == 1


async def test_it_is_bounded(autojump_clock: object) -> None:
    many = [Talker(slots=3000), Talker(slots=3000)]
    async with serving(backends(*many, model="m"), watched=True) as (_, listener):
        await trio.sleep(200)
        reply = await send(listener, "GET", "/v1/status?history=true")
        body = await reply.body()
        assert len(body) < MOST_BYTES + 32 * 1024
        found = msgspec.json.decode(body)
        assert found["cut"]["slots_detail"] > 0
        assert [one["slots"] for one in found["upstreams"]] == [3000, 3000]
