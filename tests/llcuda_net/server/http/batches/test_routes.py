"""Batches over HTTP on a server with a store: made, shown, listed, cancelled; whose they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.server.http.batches import create as module
from llcuda_net.storage.objects import batches
from tests.support.processes import PATIENCE
from tests.support.server.durable_server import keeping, stored
from tests.support.server.forms import uploaded
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import CHAT, send

USERS = "t name=ann files=100KB\nother name=bob\nops role=admin\n"


def lines(*texts: str, **changes: Any) -> bytes:
    """An input that asks these, with themselves as custom_id."""
    found = b""
    for text in texts:
        body = {"messages": [{"role": "user", "content": text}], **changes}
        one = {"custom_id": text, "method": "POST", "url": CHAT, "body": body}
        found += json.dumps(one).encode() + b"\n"
    return found


@asynccontextmanager
async def running(
    folder: Path, upstream: FakeUpstream | None = None, users: str | None = None, **settings: Any
) -> AsyncIterator[MemoryListener]:
    known = None if users is None else Users.parse(users)
    async with keeping(folder, upstream or FakeUpstream(), users=known, **settings) as found:
        yield found[1]


async def ask(
    listener: MemoryListener,
    method: str,
    path: str,
    body: Any = None,
    status: int = 200,
    *,
    token: str = "t",
    headers: Mapping[str, str] | None = None,
) -> Any:
    given = {"Authorization": f"Bearer {token}", **(headers or {})}
    answer = await send(listener, method, f"/v1/{path}", body, given)
    found = await answer.json()
    assert answer.status == status, found
    return found


async def make(
    listener: MemoryListener, data: bytes, status: int = 200, *, token: str = "t", **changes: Any
) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    file = changes.pop("input_file_id", None) or await uploaded(listener, data, headers=headers)
    given = changes.pop("headers", None)
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", **changes}
    return await ask(listener, "POST", "batches", body, status, token=token, headers=given)


async def over(listener: MemoryListener, id_: str, token: str = "t") -> Any:
    with trio.fail_after(PATIENCE):
        while True:
            found = await ask(listener, "GET", f"batches/{id_}", token=token)
            if found["status"] in ("completed", "failed", "expired", "cancelled"):
                return found
            await trio.sleep(0.01)


async def content(listener: MemoryListener, id_: str) -> list[Any]:
    answer = await send(listener, "GET", f"/v1/files/{id_}/content")
    return [json.loads(one) for one in (await answer.body()).splitlines()]


async def test_a_batch_from_beginning_to_end(tmp_path: Path) -> None:
    texts = [f"hello number {n}" for n in range(12)]
    async with running(tmp_path) as listener:
        made = await make(listener, lines(*texts), metadata={"a": "b"})
        id_, created = made["id"], made["created_at"]
        assert id_.startswith("batch_")
        assert made["object"] == "batch"
        assert made["status"] == "validating"
        assert made["expires_at"] == created + 86_400
        assert made["completion_window"] == "24h"
        assert made["metadata"] == {"a": "b"}
        assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
        assert made["errors"] is made["output_file_id"] is made["in_progress_at"] is None
        done = await over(listener, id_)
        assert done["status"] == "completed"
        assert done["request_counts"] == {"total": 12, "completed": 12, "failed": 0}
        assert created <= done["in_progress_at"] <= done["finalizing_at"] <= done["completed_at"]
        assert done["usage"]["total_tokens"] == 12 * (7 + 4)
        found = await content(listener, done["output_file_id"])
        assert [one["custom_id"] for one in found] == texts
        for one, text in zip(found, texts, strict=True):
            body = one["response"]["body"]
            assert body["choices"][0]["message"]["content"] == f"user: {text}"
            assert body["service_tier"] == "flex"
        file = await ask(listener, "GET", f"files/{done['output_file_id']}")
        assert (file["purpose"], file["filename"]) == ("batch_output", f"{id_}_output.jsonl")
        assert file["expires_at"] is None
    assert len(stored(tmp_path)) == 12


async def test_a_killed_server_asks_each_line_once(tmp_path: Path) -> None:
    texts = [f"hello number {n}" for n in range(12)]
    upstream = paused(slots=2)
    async with running(tmp_path, upstream) as listener:
        made = await make(listener, lines(*texts))
        upstream.release(4 * 4 + 2)
        with trio.fail_after(PATIENCE):
            while made["request_counts"]["completed"] < 4:
                await trio.sleep(0.01)
                made = await ask(listener, "GET", f"batches/{made['id']}")
    again = FakeUpstream(slots=2)
    async with running(tmp_path, again) as listener:
        done = await over(listener, made["id"])
        assert done["request_counts"] == {"total": 12, "completed": 12, "failed": 0}
        found = await content(listener, done["output_file_id"])
        assert [one["custom_id"] for one in found] == texts
    results = stored(tmp_path)
    assert sorted(one.key or "" for one in results) == sorted(
        f"{made['id']}:{n}" for n in range(12)
    )
    assert {one.owner for one in results} == {""}


async def test_one_that_is_cancelled_frees_the_slots(tmp_path: Path) -> None:
    upstream = paused(slots=2)
    async with running(tmp_path, upstream) as listener:
        made = await make(listener, lines(*(f"hello {n}" for n in range(9))))
        with trio.fail_after(PATIENCE):
            while upstream.active < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        cancelled = await ask(listener, "POST", f"batches/{made['id']}/cancel")
        assert cancelled["status"] == "cancelling"
        assert cancelled["cancelling_at"] >= made["created_at"]
        done = await over(listener, made["id"])
        assert done["status"] == "cancelled"
        assert done["request_counts"] == {"total": 9, "completed": 0, "failed": 9}
        assert done["output_file_id"] is None
        assert len(await content(listener, done["error_file_id"])) == 9
        with trio.fail_after(PATIENCE):
            while upstream.active:  # noqa: ASYNC110
                await trio.sleep(0.01)
        again = await ask(listener, "POST", f"batches/{made['id']}/cancel")
        assert again["status"] == "cancelled"


async def test_one_that_is_over_cannot_be_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        made = await make(listener, lines("a"))
        await over(listener, made["id"])
        error = (await ask(listener, "POST", f"batches/{made['id']}/cancel", status=409))["error"]
        assert error["code"] == "batch_over"
        assert "is completed" in error["message"]


async def test_everybodys_requests_go_before_those_of_a_batch(tmp_path: Path) -> None:
    upstream = paused(slots=1)
    async with running(tmp_path, upstream) as listener:
        await make(listener, lines(*(f"batch {n}" for n in range(9)), max_tokens=1))
        with trio.fail_after(PATIENCE):
            while not upstream.active:  # noqa: ASYNC110
                await trio.sleep(0.01)
            body = {"messages": [{"role": "user", "content": "somebody"}], "max_tokens": 1}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, listener, "POST", "chat/completions", body)
                while listener.server.queued < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                upstream.release(3)
        texts = [str(prompt) for prompt in upstream.prompts]
        assert texts.index("user: somebody") == 1


async def test_deleting_the_input_of_a_batch_that_runs(tmp_path: Path) -> None:
    upstream = paused(slots=1)
    async with running(tmp_path, upstream) as listener:
        made = await make(listener, lines("a b", "c d"))
        with trio.fail_after(PATIENCE):
            while not upstream.active:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await ask(listener, "DELETE", f"files/{made['input_file_id']}")
        upstream.release(10)
        done = await over(listener, made["id"])
        assert (done["status"], done["request_counts"]["completed"]) == ("completed", 2)
        assert done["input_file_id"] == made["input_file_id"]


async def test_the_other_endpoints(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        one = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
        data = json.dumps(one).encode()
        made = await make(listener, data, endpoint="/v1/embeddings")
        done = await over(listener, made["id"])
        (found,) = await content(listener, done["output_file_id"])
        assert found["response"]["body"]["data"][0]["embedding"] == [1.0, 1.0]
        one = {**one, "url": "/v1/completions", "body": {"prompt": "x y", "model": "fake"}}
        made = await make(listener, json.dumps(one).encode(), endpoint="/v1/completions")
        done = await over(listener, made["id"])
        (found,) = await content(listener, done["output_file_id"])
        assert found["response"]["body"]["choices"][0]["text"] == "x y"
        one = {**one, "url": "/v1/responses", "body": {"input": "x y", "model": "fake"}}
        made = await make(listener, json.dumps(one).encode(), endpoint="/v1/responses")
        done = await over(listener, made["id"])
        (found,) = await content(listener, done["output_file_id"])
        body = found["response"]["body"]
        assert (body["object"], body["status"]) == ("response", "completed")
        assert done["usage"]["input_tokens"] == body["usage"]["input_tokens"] > 0


async def test_when_its_files_expire(tmp_path: Path) -> None:
    life = {"anchor": "created_at", "seconds": 7200}
    async with running(tmp_path) as listener:
        made = await make(listener, lines("a"), output_expires_after=life, completion_window="2d")
        assert made["expires_at"] == made["created_at"] + 2 * 86_400
        done = await over(listener, made["id"])
        file = await ask(listener, "GET", f"files/{done['output_file_id']}")
        assert file["expires_at"] == pytest.approx(file["created_at"] + 7200, abs=2)


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"endpoint": "/v1/models"}, "endpoint", "must be one of /v1/chat/completions"),
        ({"completion_window": "soon"}, "completion_window", "completion_window"),
        ({"completion_window": "31d"}, "completion_window", "at most 30d"),
        ({"metadata": {"a": 1}}, "metadata", "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "metadata"),
        ({"output_expires_after": {"anchor": "x", "seconds": 1}}, None, "output_expires_after"),
        ({"priority": "high"}, None, "priority"),
        ({"headers": {"Idempotency-Key": "x" * 201}}, None, "Idempotency-Key"),
    ],
)
async def test_what_is_refused(
    tmp_path: Path, changes: dict[str, Any], param: str | None, says: str
) -> None:
    async with running(tmp_path) as listener:
        error = (await make(listener, lines("a"), 400, **changes))["error"]
        assert says in error["message"]
        assert "\n" not in error["message"]
        assert param is None or error["param"].startswith(param)
        assert not (await ask(listener, "GET", "batches"))["data"]


async def test_the_file_must_be_there_and_be_for_a_batch(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        error = (await make(listener, b"", 404, input_file_id="file-none"))["error"]
        assert (error["code"], error["param"]) == ("file_not_found", "input_file_id")
        file = await uploaded(listener, lines("a"), purpose="vision")
        error = (await make(listener, b"", 400, input_file_id=file))["error"]
        assert "uploaded for vision" in error["message"]


async def test_the_same_request_makes_no_second_one(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        file = await uploaded(listener, lines("a"))
        with_key = {"Idempotency-Key": "mine"}
        first = await make(listener, b"", input_file_id=file, headers=with_key)
        again = await make(listener, b"", input_file_id=file, headers=with_key)
        assert again["id"] == first["id"]
        expiry = {"anchor": "created_at", "seconds": 3600}
        for other_one in ({"completion_window": "2d"}, {"output_expires_after": expiry}):
            error = await make(
                listener, b"", 409, input_file_id=file, headers=with_key, **other_one
            )
            assert error["error"]["code"] == "idempotency_key_in_use"
        # What an SDK sends again, too; what somebody asks again is another one.
        other = await make(listener, b"", input_file_id=file)
        assert other["id"] != first["id"]
        retry = {"x-stainless-retry-count": "1"}
        again = await make(listener, b"", input_file_id=file, headers=retry)
        assert again["id"] == other["id"]
        third = await make(listener, b"", input_file_id=file, headers=retry, metadata={"a": ""})
        assert third["id"] not in (first["id"], other["id"])
        assert len((await ask(listener, "GET", "batches"))["data"]) == 3


async def test_no_user_has_more_than_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 2)
    async with running(tmp_path, paused(), USERS) as listener:
        for _ in range(2):
            await make(listener, lines("a"))
        error = (await make(listener, lines("a"), 429))["error"]
        assert error["code"] == "too_many_batches"
        await make(listener, lines("a"), token="other")


async def test_a_full_quota_takes_no_batch(tmp_path: Path) -> None:
    async with running(tmp_path, users=USERS) as listener:
        headers = {"Authorization": "Bearer t"}
        file = await uploaded(listener, lines("a"), headers=headers)
        await uploaded(listener, b"x" * 100_000, headers=headers)
        error = (await make(listener, b"", 429, input_file_id=file))["error"]
        assert error["code"] == "storage_quota_exceeded"


async def test_lists_and_what_belongs_to_others(tmp_path: Path) -> None:
    async with running(tmp_path, users=USERS) as listener:
        ids = [(await make(listener, lines("a")))["id"] for _ in range(3)]
        others = (await make(listener, lines("a"), token="other"))["id"]
        page = await ask(listener, "GET", "batches?limit=2")
        assert [one["id"] for one in page["data"]] == ids[:0:-1]
        assert page["has_more"]
        page = await ask(listener, "GET", f"batches?after={page['last_id']}")
        assert [one["id"] for one in page["data"]] == ids[:1]
        page = await ask(listener, "GET", f"batches?order=asc&limit=1&after={ids[0]}")
        assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[1:2], True)
        for method, rest in (("GET", ""), ("POST", "/cancel")):
            error = await ask(listener, method, f"batches/{others}{rest}", status=404)
            assert error["error"]["code"] == "batch_not_found"
        await ask(listener, "GET", f"batches?after={others}", status=404)
        error = await ask(listener, "GET", "batches?before=x", status=400)
        assert error["error"]["message"] == (
            "there is no parameter 'before'; there are: limit, after, order"
        )
        file = await uploaded(listener, lines("a"), headers={"Authorization": "Bearer other"})
        await make(listener, b"", 404, input_file_id=file)
        seen = await ask(listener, "GET", "batches", token="ops")
        assert [one["id"] for one in seen["data"]] == [others, *ids[::-1]]
        done = await over(listener, others, "other")
        await ask(listener, "GET", f"files/{done['output_file_id']}", status=404)
        await ask(listener, "GET", f"files/{done['output_file_id']}", token="other")


async def test_where_nothing_is_kept_it_is_said() -> None:
    async with serving(FakeUpstream()) as (_, listener):
        for method, path in (
            ("GET", "batches"),
            ("GET", "batches/x"),
            ("POST", "batches/x/cancel"),
        ):
            error = (await ask(listener, method, path, status=400))["error"]
            assert error["code"] == "unsupported"


async def test_rows_of_lines_do_not_stay(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (storage, listener):
        made = await make(listener, lines("a", "b"))
        await over(listener, made["id"])
        with trio.fail_after(PATIENCE):
            ask_ = "SELECT (SELECT count(*) FROM lines) + (SELECT count(*) FROM outcomes)"
            while await storage.objects.read(lambda db: db.value(ask_)):  # noqa: ASYNC110
                await trio.sleep(0.01)
        found = await storage.objects.read(lambda db: batches.find(db, made["id"], None))
        assert found is not None
        assert found.completed == 2
