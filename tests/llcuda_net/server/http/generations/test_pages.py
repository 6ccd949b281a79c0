"""GET /v1/generations: pages in both directions, filters, and searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import trio

from llcuda_net.analysis.vector_index import Found
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.storage.records import TokenLog
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import chat, post, send
from tests.support.storage.records import SECOND, START, result

PEOPLE = Users.parse("A name=ann\nB name=bob\nR name=root role=admin\n")


def put(folder: Path, *numbers: int, **changes: Any) -> None:
    """Store results, which a search finds."""
    store = SqliteStore(folder, write=True)
    store.put([result(n, **changes) for n in numbers])
    while store.update_index():
        pass
    store.close()


async def page(
    listener: MemoryListener, status: int = 200, token: str | None = None, **query: Any
) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    path = f"/v1/generations?{urlencode(query)}" if query else "/v1/generations"
    answer = await send(listener, "GET", path, None, headers)
    document = await answer.json()
    assert answer.status == status, document
    return document


def numbers(document: Any) -> list[int]:
    return [int(entry["id"][-6:]) for entry in document["data"]]


async def test_pages_in_both_orders_and_directions(tmp_path: Path) -> None:
    put(tmp_path, *range(7))
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):

        async def ids(**query: Any) -> tuple[list[int], bool]:
            found = await page(listener, limit=3, **query)
            return numbers(found), found["has_more"]

        last = result(4).id
        assert await ids() == ([6, 5, 4], True)
        assert await ids(after=last) == ([3, 2, 1], True)
        assert await ids(after=result(2).id) == ([1, 0], False)
        assert await ids(before=last) == ([6, 5], False)
        assert await ids(before=result(1).id) == ([4, 3, 2], True)
        assert await ids(order="asc") == ([0, 1, 2], True)
        assert await ids(order="asc", after=last) == ([5, 6], False)
        assert await ids(order="asc", before=last) == ([1, 2, 3], True)
        assert await ids(order="desc", before=result(6).id) == ([], False)
        assert (await page(listener, 404, after="nothing"))["error"][
            "code"
        ] == "generation_not_found"


async def test_what_runs_is_in_them(tmp_path: Path) -> None:
    put(tmp_path, 0, 1)
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        answer = await post(listener, chat("a b"), {"Idempotency-Key": "one"})
        (running,) = answer.generations

        async def ids(**query: Any) -> list[str]:
            return [entry["id"] for entry in (await page(listener, **query))["data"]]

        old = [result(1).id, result(0).id]
        assert await ids() == [running, *old]
        assert await ids(order="asc") == [*reversed(old), running]
        assert await ids(order="asc", after=old[0]) == [running]
        assert await ids(after=running) == old
        assert await ids(before=old[0]) == [running]
        assert await ids(state="running") == [running]
        assert await ids(state="done,running", limit=2) == [running, old[0]]
        assert await ids(since="1h") == [running]
        assert await ids(until="1h") == old
        assert await ids(since="2200-01-01") == []
        assert await ids(model="other") == []
        upstream.release(10)
        await answer.all()


async def test_filters(tmp_path: Path) -> None:
    put(tmp_path, 0, 1, 2)
    put(tmp_path, 3, state="failed", error={"code": "internal", "message": "x"})
    put(tmp_path, 4, model={"name": "other"})
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):

        async def ids(**query: Any) -> list[int]:
            return numbers(await page(listener, **query))

        at = START // SECOND
        assert await ids(state="failed") == [3]
        assert await ids(state="failed, done", limit=2) == [4, 3]
        assert await ids(model="other") == [4]
        assert await ids(model="demo", state="done") == [2, 1, 0]
        assert await ids(since=at + 3) == [4, 3]
        assert await ids(since=f"{at + 3}.5") == [4]
        assert await ids(until=at + 1) == [0]
        assert await ids(since="2023-11-14T22:13:22Z", until="2023-11-14T23:13:23+01:00") == [2]
        assert await ids(since="2023-11-15", order="asc") == []
        # A plus that is not encoded comes as a space.
        answer = await send(
            listener, "GET", "/v1/generations?since=2023-11-14T23:13:24+01:00&limit=10"
        )
        assert numbers(await answer.json()) == [4]
        assert await ids(after=result(3).id, until=at + 2) == [1, 0]
        assert await ids(after=result(1).id, order="asc", until=at + 4) == [2, 3]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", None),
        ("limit=1000", None),
        ("q=a&limit=101", None),
        ("state=lost", None),
        ("state=", None),
        ("since=once", None),
        ("since=2999-01-01", None),
        ("until=9e9", None),
        ("since=999999999999999w", None),
        ("order=up", "order"),
        ("after=a&before=b", "before"),
        ("q=a&semantic=b", "semantic"),
        ("q=a&after=x", "after"),
        ("q=a&order=asc", "order"),
        ("semantic=a&model=m", "model"),
        ("semantic=a&since=1d", "since"),
        ("q=", "q"),
        ("q=%20", "q"),
        ("semantic=", "semantic"),
        (f"q={'a' * 4097}", "q"),
        ("q=%21%21", None),
        ("page=2", "page"),
        ("Limit=2", "Limit"),
    ],
)
async def test_what_is_refused(query: str, param: str | None, tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        answer = await send(listener, "GET", f"/v1/generations?{query}")
        error = (await answer.json())["error"]
    assert (answer.status, error["param"]) == (400, param), error
    assert "\n" not in error["message"]


async def test_words(tmp_path: Path) -> None:
    put(tmp_path, 0, request={"prompt": "Tell me of pandas & <b>bears</b>"})
    put(tmp_path, 1, log=TokenLog(["A ", "panda ", "eats \U0001f43c bamboo."], [1, 2, 3]))
    put(tmp_path, 2, state="failed", request={"prompt": "a panda"})
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        found = await page(listener, q="bears")
        (entry,) = found["data"]
        assert (numbers(found), found["has_more"]) == ([0], False)
        assert found["search"] == {"unindexed": 0, "of_newest": None}
        assert entry["score"] > 0
        match = entry["matches"]["prompt"]
        (span,) = match["highlights"]
        assert match["excerpt"] == "Tell me of pandas & <b>bears</b>"
        assert match["excerpt"][slice(*span)] == "bears"
        found = await page(listener, q="bamboo")
        match = found["data"][0]["matches"]["text"]
        assert [match["excerpt"][slice(*one)] for one in match["highlights"]] == ["bamboo"]
        assert sorted(numbers(await page(listener, q="panda*"))) == [0, 1, 2]
        assert len(numbers(await page(listener, q="panda*", limit=2))) == 2
        assert numbers(await page(listener, q="panda*", state="failed")) == [2]
        assert numbers(await page(listener, q="panda*", until=START // SECOND + 1)) == [0]
        assert numbers(await page(listener, q="panda", model="other")) == []
        assert numbers(await page(listener, q='"eats bamboo"')) == []
        assert numbers(await page(listener, q="tiger OR bamboo")) == [1]


async def test_each_user_finds_their_own(tmp_path: Path) -> None:
    put(tmp_path, 0, 2, owner="ann")
    put(tmp_path, 1, owner="bob")
    async with keeping(tmp_path, FakeUpstream(), users=PEOPLE) as (_, listener):
        assert numbers(await page(listener, token="A")) == [2, 0]
        assert numbers(await page(listener, token="B", q="number")) == [1]
        assert sorted(numbers(await page(listener, token="R", q="number"))) == [0, 1, 2]
        assert "owner" not in (await page(listener, token="B"))["data"][0]
        (entry,) = (await page(listener, token="R", q="number", limit=1))["data"]
        assert entry["owner"] in ("ann", "bob")
        # What belongs to somebody else is no place in a list, either.
        await page(listener, 404, token="B", after=result(0).id)


async def test_results_that_are_not_indexed_yet_are_counted(tmp_path: Path) -> None:
    put(tmp_path, 0)
    async with keeping(tmp_path, FakeUpstream()) as (storage, listener):
        store = SqliteStore(tmp_path)
        assert store.unindexed() == 0
        assert store.unindexed("nobody") == 0
        store.close()
        assert (await page(listener, q="number"))["search"]["unindexed"] == 0
        assert storage is not None


async def test_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, str]] = []
    put(tmp_path, 0)
    store = SqliteStore(tmp_path)
    ((summary, text),) = store.listed(Query())
    store.close()

    async def search(text_: str, k: int, user: User) -> Found:
        await trio.lowlevel.checkpoint()
        asked.append((text_, k, user.name))
        return Found([(summary, text, 0.75)], searched=3, backlog=1)

    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        monkeypatch.setattr(listener.server.queries, "search", search)
        found = await page(listener, semantic="what number", limit=5)
    assert asked == [("what number", 5, "")]
    assert (numbers(found), found["search"]) == ([0], {"searched": 3, "backlog": 1})
    (entry,) = found["data"]
    assert (entry["score"], entry["text"], entry["state"]) == (0.75, text, "done")


async def test_where_nothing_is_kept_there_is_nothing_to_search(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        for name in ("q", "semantic"):
            error = (await page(listener, 400, **{name: quote("a b")}))["error"]
            assert error["code"] == "unsupported"
