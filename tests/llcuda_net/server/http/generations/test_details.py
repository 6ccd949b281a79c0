"""GET /v1/generations/{id}: what was asked, how it went, and as HTML."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.storage.records import Splice, Switch, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import chat, post, send
from tests.support.storage.records import START, result

PEOPLE = Users.parse("A name=ann\nB name=bob\nR name=root role=admin\n")


async def show(
    listener: MemoryListener, id_: str, query: str = "", *, token: str = "", status: int = 200
) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await send(listener, "GET", f"/v1/generations/{id_}{query}", None, headers)
    document = await answer.json()
    assert answer.status == status, document
    return document


def put(folder: Path, number: int, **changes: Any) -> str:
    store = SqliteStore(folder, write=True)
    store.put([result(number, **changes)])
    store.close()
    return result(number).id


async def test_all_of_one_that_is_stored(tmp_path: Path) -> None:
    shape = {"model": "m", "previous": "resp_x"}
    id_ = put(
        tmp_path,
        1,
        request={
            "prompt": None,
            "messages": [{"role": "user", "content": "hi"}],
            "params": {"temperature": 0.5},
            "timeout": 60.0,
            "chat": {"reasoning_effort": "low"},
            "model": "m",
            "api": {"kind": "unknown to this version", "shape": shape},
        },
        log=TokenLog(["a ", "think", "b"], [1, 2, 3]),
        switches=[Switch(1, "reasoning"), Switch(2, "text")],
        splices=[Splice(0, "http://one", 1), Splice(2, "http://two", 2)],
        stop="x",
        key="mine",
        model={"name": "demo", "hash": "ab", "path": "/home/somebody/demo.gguf"},
    )
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        found = await show(listener, id_)
    assert found["request"] == {
        "messages": [{"role": "user", "content": "hi"}],
        "params": {"temperature": 0.5},
        "timeout": 60.0,
        "chat": {"reasoning_effort": "low"},
        "model": "m",
    }
    assert (found["text"], found["reasoning"], found["stop"]) == ("a b", "think", "x")
    assert (found["created"], found["finished"]) == (
        (START / 1e9) + 1,
        pytest.approx(START / 1e9 + 1),
    )
    assert found["timings"] == {"queue": 0.1, "total": 12.5}
    assert found["splices"] == [{"position": 2, "epoch": 2}]
    assert found["fingerprint"] == {"name": "demo", "hash": "ab"}
    assert (found["previous"], found["idempotency_key"], found["seed"]) == ("resp_x", "mine", 1)
    assert found["level"] == "disk"


async def test_one_that_runs_and_then_is_over(tmp_path: Path) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        answer = await post(listener, chat("a b", temperature=0), {"Idempotency-Key": "one"})
        (id_,) = answer.generations
        found = await show(listener, id_)
        assert found["request"]["messages"] == [{"role": "user", "content": "a b"}]
        assert found["request"]["params"]["temperature"] == 0
        assert "api" not in found["request"]
        assert (found["state"], found["finished"], found["timings"]) == ("running", None, None)
        upstream.release(10)
        await answer.all()
        found = await show(listener, id_)
        assert (found["state"], found["text"]) == ("done", "user: a b")
        assert found["finished"] >= found["created"]
        assert found["timings"]["total"] > 0
        assert found["request"]["messages"] == [{"role": "user", "content": "a b"}]


async def test_one_whose_log_was_dropped_from_memory(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("a b", stream=False))
        (id_,) = answer.generations
        await answer.body()
        listener.server._shelf.clear()
        found = await show(listener, id_)
        assert (found["state"], found["text"]) == ("done", "user: a b")
        assert found["timings"]["total"] > 0


async def test_where_nothing_is_kept(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("a b", stream=False))
        (id_,) = answer.generations
        await answer.body()
        await wait_all_tasks_blocked()
        found = await show(listener, id_)
        await trio.sleep(10)
        assert await show(listener, id_) == found  # also the time that it took
        assert (found["text"], found["level"]) == ("user: a b", "memory")
        assert found["created"] <= found["finished"] <= time.time()
        assert found["timings"]["total"] == 0.0
        assert found["request"]["messages"] == [{"role": "user", "content": "a b"}]


async def test_admins_see_whose_it_is_and_where_it_ran(tmp_path: Path) -> None:
    id_ = put(tmp_path, 1, owner="ann")
    async with keeping(tmp_path, FakeUpstream(), users=PEOPLE) as (_, listener):
        assert "upstream" not in await show(listener, id_, token="A")
        await show(listener, id_, token="B", status=404)
        found = await show(listener, id_, token="R")
        assert (found["owner"], found["upstream"]) == ("ann", "http://127.0.0.1:8080")


async def test_as_html(tmp_path: Path) -> None:
    id_ = put(
        tmp_path,
        1,
        log=TokenLog(["*hi* <script>", "**why**"], [1, 2]),
        switches=[Switch(1, "reasoning")],
    )
    plain = put(tmp_path, 2)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        found = await show(listener, id_, "?render=html")
        assert found["html"] == {
            "text": "<p><em>hi</em> &lt;script&gt;</p>\n",
            "reasoning": "<p><strong>why</strong></p>\n",
        }
        assert found["text"] == "*hi* <script>"
        assert found["blocks"] == [
            {"n": 0, "channel": "text", "html": found["html"]["text"]},
            {"n": 1, "channel": "reasoning", "html": found["html"]["reasoning"]},
        ]
        assert "html" not in await show(listener, id_)
        assert (await show(listener, plain, "?render=html"))["html"]["reasoning"] is None
        for wrong in ("?render=pdf", "?render=", "?html=1"):
            error = (await show(listener, id_, wrong, status=400))["error"]
            assert error["param"] in ("render", "html")


async def test_a_large_one(tmp_path: Path) -> None:
    text = "word " * 200_000
    id_ = put(tmp_path, 1, log=TokenLog([text], [1]), request={"prompt": text})
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        found = await show(listener, id_, "?render=html")
        assert (found["text"], found["request"]["prompt"]) == (text, text)
        blocks = [block["html"] for block in found["blocks"]]
        assert "".join(blocks) == found["html"]["text"]
        assert max(map(len, blocks)) < 70_000
        assert re.sub("<[^>]*>", "", found["html"]["text"]).strip() == text.strip()
