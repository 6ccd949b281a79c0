"""Responses of a server in memory: what is answered, kept, and gone on from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.errors import UpstreamError
from llcuda_net.storage.storage import TRANSIENT
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import Reply, SseEvent, ask, chat, post, resume, send
from tests.support.storage.clock import Clock
from tests.support.storage.holders import holders

RESPONSES = "/v1/responses"
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


async def create(
    listener: MemoryListener, text: Any = "a b c", headers: Any = None, **fields: Any
) -> Reply:
    return await send(listener, "POST", RESPONSES, {"input": text, **fields}, headers)


async def made(listener: MemoryListener, text: Any = "a b c", **fields: Any) -> Any:
    reply = await create(listener, text, **fields)
    document = await reply.json()
    assert reply.status == 200, document
    return document


async def get(listener: MemoryListener, id_: str, path: str = "", **headers: str) -> Any:
    reply = await send(listener, "GET", f"{RESPONSES}/{id_}{path}", None, headers)
    document = await reply.json()
    assert reply.status == 200, document
    return document


async def events(listener: MemoryListener, id_: str, query: str = "") -> list[SseEvent]:
    reply = await send(listener, "GET", f"{RESPONSES}/{id_}?stream=true{query}")
    assert reply.status == 200, await reply.body()
    return await reply.all()


async def refused(reply: Reply, status: int, code: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = (await reply.json())["error"]
    assert reply.status == status, error
    assert code is None or error["code"] == code
    return error


def text_of(response: dict[str, Any]) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def numbers(found: list[SseEvent]) -> list[int]:
    return [event.json["sequence_number"] for event in found]


# -- create ---------------------------------------------------------------------------------------


async def test_a_response_is_answered_as_a_whole(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await create(listener, user="me", metadata={"a": "b"}, instructions="be brief")
        answer = await reply.json()
        (id_,) = reply.generations
        assert await get(listener, answer["id"]) == answer
        assert await get(listener, id_) == answer
    assert reply.headers["x-llcuda-ignored"] == "user"
    assert answer["id"] == f"resp_{id_}"
    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert text_of(answer) == "system: be brief user: a b c"
    assert (answer["metadata"], answer["instructions"]) == ({"a": "b"}, "be brief")
    assert answer["usage"]["input_tokens"] == 7
    assert answer["usage"]["total_tokens"] == 7 + answer["usage"]["output_tokens"]


async def test_a_stream_can_be_read_from_anywhere(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await create(listener, stream=True)
        found = await reply.all()
        id_ = found[0].json["response"]["id"]
        assert numbers(found) == list(range(len(found)))
        assert found[-1].json["response"] == await get(listener, id_)
        for after in range(len(found)):
            again = await events(listener, id_, f"&starting_after={after}")
            assert [one.data for one in again] == [one.data for one in found[after + 1 :]]
        assert await events(listener, id_) == found
        for one in found:
            if one.own_id:
                again = await (await resume(listener, id_[5:], one.id)).all()
                assert numbers(again) == list(range(one.json["sequence_number"] + 1, len(found)))


async def test_what_runs_is_followed_from_anywhere(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener), trio.open_nursery() as nursery:
        reply = await create(listener, stream=True)
        found: list[SseEvent] = []
        upstream.release(2)
        while len(found) < 6:
            event = await reply.event()
            assert event is not None
            found.append(event)
        id_ = found[0].json["response"]["id"]
        now = await get(listener, id_)
        assert (now["status"], now["usage"]) == ("in_progress", None)
        assert text_of(now) == "".join(one.json["delta"] for one in found[4:])
        assert now["output"][0]["status"] == "in_progress"
        readers: dict[int, list[SseEvent]] = {}

        async def read(after: int) -> None:
            readers[after] = await events(listener, id_, f"&starting_after={after}")

        for after in (0, 3, 5, 8):
            nursery.start_soon(read, after)
        await wait_all_tasks_blocked()
        upstream.release(100)
        found += await reply.all()
        await trio.sleep(1)
    for after, again in readers.items():
        assert [one.data for one in again] == [one.data for one in found[after + 1 :]]


async def test_channels(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    call = Channel(TOOL_CALL, 0, "call_1", "f")
    upstream.answer = [("hm", Channel(REASONING)), ("I see", None), ("", call), ("{}", call)]
    async with serving(upstream) as (_, listener):
        first = await made(listener, tools=[TOOL], include=["reasoning.encrypted_content"])
        thought, said, called = first["output"]
        assert (said["content"][0]["text"], called["arguments"]) == ("I see", "{}")
        # Codex keeps nothing, and sends all of it back.
        output = {"type": "function_call_output", "call_id": "call_1", "output": "4711"}
        hidden = {**thought, "content": None}
        await made(listener, [{"role": "user", "content": "a"}, hidden, said, called, output])
        await made(listener, [output], previous_response_id=first["id"])
    answered = {
        "role": "assistant",
        "content": "I see",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    result = {"role": "tool", "content": "4711", "tool_call_id": "call_1"}
    assert upstream.chats[1][0] == [{"role": "user", "content": "a"}, answered, result]
    assert upstream.chats[2][0] == [{"role": "user", "content": "a b c"}, answered, result]


async def test_log_probabilities(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        include = ["message.output_text.logprobs"]
        answer = await made(listener, "a", include=include, top_logprobs=2)
    tokens = answer["output"][0]["content"][0]["logprobs"]
    assert [len(token["top_logprobs"]) for token in tokens] == [2, 2]


async def test_what_fails_has_a_status_or_an_event(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError("it broke", retry=False)
    async with serving(upstream, failover_seconds=1.0) as (_, listener):
        reply = await create(listener)
        await refused(reply, 502, "upstream_error")
        assert reply.generations
        found = await (await create(listener, stream=True)).all()
        assert numbers(found) == list(range(len(found)))
        last = found[-1].json
        assert last["type"] == "response.failed"
        assert last["response"]["error"]["code"] == "server_error"
        assert (await get(listener, last["response"]["id"]))["status"] == "failed"


async def test_a_key_joins_what_was_begun_with_it(autojump_clock: object) -> None:
    key = {"Idempotency-Key": "one"}
    async with serving(FakeUpstream()) as (_, listener):
        first = await (await create(listener, headers=key, metadata={"a": "b"})).json()
        again = await (await create(listener, headers=key, metadata={"a": "c"})).json()
        other = await create(listener, "other", headers=key)
        await refused(other, 409)
    assert again == first


# -- in the background, and without a reader ------------------------------------------------------


async def test_in_the_background_it_is_answered_at_once(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        begun = await made(listener, background=True)
        assert begun["status"] in ("queued", "in_progress")
        assert (begun["output"], begun["background"]) == ([], True)
        waiting = await made(listener, "later", background=True)
        assert waiting["status"] == "queued"
        await trio.sleep(300)
        upstream.release(100)
        await trio.sleep(1)
        done = await get(listener, begun["id"])
        assert (done["status"], text_of(done)) == ("completed", "user: a b c")
        found = await events(listener, begun["id"])
        assert [one.json["type"] for one in found[:3]] == [
            "response.created",
            "response.queued",
            "response.in_progress",
        ]


async def test_a_stream_in_the_background_needs_no_reader(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        reply = await create(listener, stream=True, background=True)
        (first, _) = await reply.some(2)
        await trio.sleep(300)
        upstream.release(100)
        await trio.sleep(1)
        assert (await get(listener, first.json["response"]["id"]))["status"] == "completed"
        reply = await create(
            listener, background=True, headers={"x-llcuda-on-disconnect": "cancel"}
        )
        assert (await refused(reply, 400))["param"] == "x-llcuda-on-disconnect"


@pytest.mark.parametrize(
    ("fields", "seconds"), [({}, 30), ({"store": False}, 10), ({"stream": False}, 0)]
)
async def test_who_is_cut_off_can_come_back(
    fields: dict[str, Any], seconds: int, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream, disconnect_seconds=30.0) as (server, listener):
        body = {"input": "a b c", "stream": True, **fields}
        _, stream = await ask(listener, "POST", RESPONSES, body)
        await trio.sleep(1)
        (generation,) = server.registry
        await stream.aclose()
        await trio.sleep(max(0, seconds - 1))
        if seconds:
            assert not generation.ended
        await trio.sleep(2)
        assert generation.ended


async def test_one_that_is_cancelled(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        id_ = (await made(listener, background=True))["id"]
        upstream.release(1)
        reply = await send(listener, "POST", f"{RESPONSES}/{id_}/cancel")
        answer = await reply.json()
        assert (answer["status"], answer["error"]) == ("cancelled", None)
        found = await events(listener, id_)
        assert found[-1].json["type"] == "response.cancelled"
        assert numbers(found) == list(range(len(found)))
        again = await send(listener, "POST", f"{RESPONSES}/{id_}/cancel")
        assert await again.json() == answer


async def test_one_that_is_deleted(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        id_ = (await made(listener, background=True))["id"]
        await refused(await send(listener, "DELETE", f"{RESPONSES}/{id_}"), 400)
        upstream.release(100)
        await trio.sleep(1)
        reply = await send(listener, "DELETE", f"{RESPONSES}/{id_}")
        assert await reply.json() == {"id": id_, "object": "response", "deleted": True}
        await refused(await send(listener, "GET", f"{RESPONSES}/{id_}"), 404)
        await refused(await send(listener, "DELETE", f"{RESPONSES}/{id_}"), 404)


# -- what came before -----------------------------------------------------------------------------


async def test_a_response_goes_on_from_another(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        developer = {"role": "developer", "content": "d"}
        first = await made(
            listener, [developer, {"role": "user", "content": "one"}], instructions="be brief"
        )
        second = await made(
            listener, "two", previous_response_id=first["id"], instructions="be long"
        )
        third = await made(listener, "three", previous_response_id=second["id"])
        shown = await get(listener, third["id"], "/input_items")
        before = await get(listener, first["id"], "/input_items?order=asc")
    assert text_of(first) == "system: be brief d user: one"
    one = f"system: d user: one assistant: {text_of(first)}"
    assert text_of(second) == one.replace("system: d", "system: be long d") + " user: two"
    assert text_of(third) == f"{one} user: two assistant: {text_of(second)} user: three"
    assert third["previous_response_id"] == second["id"]
    assert [item["content"][0]["text"] for item in shown["data"]] == ["three"]
    assert [item["role"] for item in before["data"]] == ["developer", "user"]


async def test_it_goes_on_from_a_chat(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]
        reply = await post(listener, chat(stream=False, messages=messages))
        first = await reply.json()
        again = await made(listener, "two", previous_response_id=first["id"], instructions="i")
        shown = await get(listener, first["id"])
    said = first["choices"][0]["message"]["content"]
    assert text_of(again) == f"system: i user: one assistant: {said} user: two"
    assert text_of(shown) == said


async def test_it_cannot_go_on_from_everything(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        reply = await create(listener, previous_response_id="resp_none")
        error = await refused(reply, 400, "previous_response_not_found")
        assert error["param"] == "previous_response_id"
        id_ = (await made(listener, background=True))["id"]
        reply = await create(listener, previous_response_id=id_)
        assert "still runs" in (await refused(reply, 400))["message"]


async def test_references_to_items(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        first = await made(listener, "one")
        (item,) = first["output"]
        (asked,) = (await get(listener, first["id"], "/input_items"))["data"]
        again = await made(
            listener,
            [
                {"type": "item_reference", "id": asked["id"]},
                {"id": item["id"]},
                {"role": "user", "content": "two"},
            ],
        )
        missing = {"type": "item_reference", "id": item["id"][:-1] + "9"}
        await refused(await create(listener, [missing]), 404, "item_not_found")
    assert text_of(again) == f"user: one assistant: {text_of(first)} user: two"


async def test_pages_of_items(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        said = [{"role": "user", "content": str(number)} for number in range(5)]
        id_ = (await made(listener, said))["id"]
        first = await get(listener, id_, "/input_items?limit=2")
        second = await get(listener, id_, f"/input_items?limit=2&after={first['last_id']}")
        last = await get(listener, id_, f"/input_items?limit=2&after={second['last_id']}")
        reply = await send(listener, "GET", f"{RESPONSES}/{id_}/input_items?after=odd")
        await refused(reply, 400)
    pages = [[one["content"][0]["text"] for one in page["data"]] for page in (first, second, last)]
    assert pages == [["4", "3"], ["2", "1"], ["0"]]
    assert [page["has_more"] for page in (first, second, last)] == [True, True, False]
    assert len({one["id"] for page in (first, second, last) for one in page["data"]}) == 5


async def test_what_is_of_another_user_is_not_there(autojump_clock: object) -> None:
    users = Users.parse(f"{'a' * 32} name=ann\n{'b' * 32} name=bob\n")
    ann, bob = ({"Authorization": f"Bearer {letter * 32}"} for letter in "ab")
    async with serving(FakeUpstream(), users=users) as (_, listener):
        response = await (await create(listener, headers=ann)).json()
        id_ = response["id"]
        for method, path in (
            ("GET", id_),
            ("GET", f"{id_}?stream=true"),
            ("GET", f"{id_}/input_items"),
            ("POST", f"{id_}/cancel"),
            ("DELETE", id_),
        ):
            await refused(await send(listener, method, f"{RESPONSES}/{path}", None, bob), 404)
        reply = await create(listener, headers=bob, previous_response_id=id_)
        await refused(reply, 400, "previous_response_not_found")
        reference = {"type": "item_reference", "id": response["output"][0]["id"]}
        await refused(await create(listener, [reference], headers=bob), 404)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?starting_after=1", 400),
        ("?starting_behind=1", 400),
        ("/input_items?before=msg_1", 400),
        ("?stream=odd", 400),
        ("?stream=true&starting_after=odd", 400),
        ("?stream=true&starting_after=-1", 400),
        ("?stream=true&starting_after=999", 400),
    ],
)
async def test_a_query_that_is_wrong(query: str, status: int, autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        id_ = (await made(listener))["id"]
        await refused(await send(listener, "GET", f"{RESPONSES}/{id_}{query}"), status)


async def test_what_a_query_cannot_ask_for_is_named(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        id_ = (await made(listener))["id"]
        for query in (
            "?include[]=x",
            "?stream=true&include_obfuscation=false",
            "/input_items?include[]=x",
        ):
            reply = await send(listener, "GET", f"{RESPONSES}/{id_}{query}")
            named = query.split("?")[1].split("&")[-1].split("=")[0]
            assert reply.headers["x-llcuda-ignored"] == named


# -- what is kept ---------------------------------------------------------------------------------


async def test_a_stored_response_is_the_same_to_the_byte(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    call = Channel(TOOL_CALL, 0, "call_1", "f")
    upstream.answer = [("hm", Channel(REASONING)), ("I see", None), ("", call), ("{}", call)]
    said = [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}]
    async with keeping(tmp_path, upstream) as (_, listener):
        reply = await create(
            listener,
            said,
            stream=True,
            instructions="be brief",
            temperature=0.5,
            tools=[TOOL],
            include=["message.output_text.logprobs"],
        )
        live = await reply.body()
        id_ = f"resp_{reply.generations[0]}"
        items = await get(listener, id_, "/input_items?order=asc")
    assert b"response.completed" in live
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        stored = await send(listener, "GET", f"{RESPONSES}/{id_}?stream=true")
        assert await stored.body() == live
        assert await get(listener, id_, "/input_items?order=asc") == items
        assert [item["role"] for item in items["data"]] == ["developer", "user"]
        last = json.loads(live.split(b"data: ")[-1])
        assert await get(listener, id_) == last["response"]


async def test_the_tokens_of_an_input(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        first = await made(listener, "one")
        body = {"input": "two words", "instructions": "i", "previous_response_id": first["id"]}
        path = f"{RESPONSES}/input_tokens"
        reply = await send(listener, "POST", path, {**body, "personality": "friendly"})
        found = await reply.json()
        created = await made(listener, body.pop("input"), **body)
    assert reply.headers["x-llcuda-ignored"] == "personality"
    said = text_of(created).encode()
    assert found == {"object": "response.input_tokens", "input_tokens": 1 + len(said)}


async def test_the_oldest_messages_are_left_out_where_there_is_no_room(
    autojump_clock: object,
) -> None:
    upstream = FakeUpstream(context=64)
    said = [{"role": "user", "content": "x" * 20}, {"role": "assistant", "content": "y" * 20}]
    said.append({"role": "user", "content": "z"})
    async with serving(upstream) as (_, listener):
        answer = await made(listener, said, truncation="auto", instructions="i")
        short = await made(listener, "z", truncation="auto")
        shown = await get(listener, answer["id"], "/input_items?order=asc")
    assert answer["truncation"] == "auto"
    assert answer["llcuda"]["truncated"] == 1
    assert text_of(answer) == f"system: i assistant: {'y' * 20} user: z"
    assert "truncated" not in short["llcuda"]
    assert [item["content"][0]["text"][0] for item in shown["data"]] == ["x", "y", "z"]


async def test_what_is_not_stored_is_there_for_ten_minutes_and_then_nowhere(
    tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock(time.time_ns())
    async with keeping(tmp_path, FakeUpstream(), clock=clock) as (storage, listener):
        first = await made(listener, "rosebud", store=False, metadata={"a": "rosebud"})
        assert first["store"] is False
        id_ = first["id"]
        assert await get(listener, id_) == first
        assert len(await events(listener, id_, "&starting_after=3")) > 3
        (item,) = (await get(listener, id_, "/input_items"))["data"]
        assert item["content"][0]["text"] == "rosebud"
        again = await made(listener, "and?", previous_response_id=id_)
        assert again["store"] is False
        reply = await create(listener, "and?", previous_response_id=id_, store=True)
        assert (await refused(reply, 400))["param"] == "store"
        item = {"type": "item_reference", "id": first["output"][0]["id"]}
        assert (await made(listener, [item, {"role": "user", "content": "x"}]))["store"] is False
        assert text_of(again).startswith("user: rosebud assistant: user: rosebud")
        clock.advance(TRANSIENT)
        for _ in range(600):
            if not len(storage.transient) and not holders(tmp_path, "rosebud"):
                break
            await trio.sleep(1)
        assert not holders(tmp_path, "rosebud")
        await refused(await send(listener, "GET", f"{RESPONSES}/{id_}"), 404)
        reply = await create(listener, previous_response_id=id_)
        await refused(reply, 400, "previous_response_not_found")
