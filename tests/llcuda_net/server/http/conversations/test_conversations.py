"""Conversations over HTTP: what is in them, what a response in one goes on from, whose they are."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses import earlier
from llcuda_net.server.http.responses.items import parse, together
from llcuda_net.server.http.responses.transcript import Item, Message
from llcuda_net.storage.objects import entries
from llcuda_net.storage.objects.entries import Entry
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from tests.support.server.conversations import (
    PATH,
    RESPONSES,
    TOOL,
    USERS,
    begin,
    call,
    items,
    respond,
    running,
    said,
    texts,
)
from tests.support.server.memory_server import FakeUpstream, paused, serving
from tests.support.server.sse_client import ask, reply, send


async def test_it_has_its_members_and_they_change(tmp_path: Path, autojump_clock: object) -> None:
    async with running(tmp_path) as listener:
        made = await call(listener, "POST", PATH, {"title": "one", "metadata": {"a": "b"}})
        assert made["object"] == "conversation"
        assert (made["title"], made["pinned"], made["metadata"]) == ("one", False, {"a": "b"})
        path = f"{PATH}/{made['id']}"
        changed = await call(listener, "POST", path, {"pinned": True, "title": None})
        assert changed["title"] is None
        assert changed["pinned"]
        assert changed["metadata"] == {"a": "b"}
        assert (await call(listener, "POST", path, {"metadata": None}))["metadata"] == {}
    async with running(tmp_path) as listener:  # after a restart
        assert (await call(listener, "GET", path))["pinned"]
        gone = await call(listener, "DELETE", path)
        assert gone == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        await call(listener, "GET", path, status=404)
        await call(listener, "POST", path, {"title": "x"}, status=404)


async def test_they_are_listed_in_pages(tmp_path: Path, autojump_clock: object) -> None:
    async with running(tmp_path) as listener:
        ids = [await begin(listener, title=str(n)) for n in range(3)]
        await call(listener, "POST", f"{PATH}/{ids[0]}", {"pinned": True})
        first = await call(listener, "GET", f"{PATH}?limit=2")
        assert [one["id"] for one in first["data"]] == [ids[0], ids[2]]
        assert first["has_more"]
        rest = await call(listener, "GET", f"{PATH}?after={first['last_id']}")
        assert [one["id"] for one in rest["data"]] == [ids[1]]
        assert not rest["has_more"]
        for wrong in ("?limit=0", "?order=asc", "?order=x"):
            await call(listener, "GET", PATH + wrong, status=400)
        await call(listener, "GET", f"{PATH}?after=conv_0", status=404)


async def test_a_response_goes_on_from_it_and_is_added(
    tmp_path: Path, autojump_clock: object
) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, items=[said("system", "be kind")])
        first = await respond(listener, id_, "a", instructions="short")
        assert first["conversation"] == {"id": id_}
        answer = first["output"][0]["content"][0]["text"]
        await respond(listener, id_, "b")
        assert upstream.prompts[0] == "system: short\n\nbe kind user: a"
        # What the first one was told to be is not inherited, as OpenAI has it.
        assert upstream.prompts[1] == f"system: be kind user: a assistant: {answer} user: b"
        listed = await items(listener, id_)
        roles = ["system", "user", "assistant", "user", "assistant"]
        assert [role for role, _ in texts(listed)] == roles
        assert len({one["id"] for one in listed}) == 5
        assert texts(listed)[2] == ("assistant", answer)
        backwards = await items(listener, id_, "?limit=2")
        assert backwards == listed[:-3:-1]
        page = await items(listener, id_, f"?limit=2&after={backwards[-1]['id']}")
        assert page == listed[2:0:-1]
    async with running(tmp_path) as listener:
        assert await items(listener, id_) == listed


async def test_a_response_reads_the_last_one_before_it_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    input_of = earlier.input_of

    async def noted(
        exchange: Exchange, generation: Generation, *, whole: bool = False
    ) -> list[Item]:
        read.append(generation.id)
        return await input_of(exchange, generation, whole=whole)

    monkeypatch.setattr(earlier, "input_of", noted)
    upstream = FakeUpstream()
    upstream.answer = [("yes", None)]
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, items=[said("system", "be kind")])
        made = [await respond(listener, id_, f"{n}", tools=[TOOL]) for n in range(6)]
        named = [one["id"].removeprefix("resp_") for one in made]
        assert read == named[:-1]  # each by the one behind it
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:  # from the store
        read.clear()
        await respond(listener, id_, "6", tools=[TOOL])
        assert read == named[-1:]
        roles = [message["role"] for message in upstream.chats[-1][0]]
        assert roles == ["system", *(["user", "assistant"] * 6), "user"]


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_read_of_the_last_one_is_what_all_of_them_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever was added and deleted in between."""
    chance = Random(seed)
    shortened: list[bool] = []
    upstream = FakeUpstream()
    call_ = Channel(TOOL_CALL, 0, "call_1", "f")
    answers: list[list[tuple[str, Channel | None]]] = [
        [("yes", None)],
        [("hm", Channel(REASONING)), ("well", None)],
        [("I look", None), ("", call_), ("{}", call_)],
    ]
    real = chains._shortened

    async def both(
        exchange: Exchange, found: list[Entry], hidden: set[str]
    ) -> tuple[list[Message], list[Entry]]:
        async def messages(known: list[Message], some: list[Entry]) -> list[Message]:
            known_by = await chains.named(exchange, id_)
            listed = await chains.listed_of(exchange, known_by, some, hidden, running=False)
            if not listed:
                return known
            found = parse(listed, Ignored(lenient=True)).messages
            return together(known, [one for one in found if one is not None])

        known, rest = await real(exchange, found, hidden)
        shortened.append(len(rest) < len(found))
        assert await messages(known, rest) == await messages([], found)
        return known, rest

    monkeypatch.setattr(chains, "_shortened", both)
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, items=[said("user", "first")])
        path, made = f"{PATH}/{id_}/items", ["none"]
        for n in range(30):
            upstream.answer = chance.choice(answers)
            does = chance.choice(["respond"] * 6 + ["add", "delete item", "delete response"])
            listed = await items(listener, id_, "?order=asc&limit=100")
            if does == "respond":
                more: dict[str, Any] = chance.choice([{}, {"instructions": "short"}])
                made.append((await respond(listener, id_, f"ask {n}", tools=[TOOL], **more))["id"])
            elif does == "add":
                role = chance.choice(["user", "assistant", "system"])
                await call(listener, "POST", path, {"items": [said(role, f"{n}")]})
            elif does == "delete item" and listed:
                await call(listener, "DELETE", f"{path}/{chance.choice(listed)['id']}")
            elif does == "delete response" and len(made) > 1:
                one = made.pop(chance.randrange(1, len(made)))
                await call(listener, "DELETE", f"{RESPONSES}/{one}")
        assert any(shortened)
        assert not all(shortened)


async def test_items_are_added_shown_and_deleted(tmp_path: Path, autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a")
        path = f"{PATH}/{id_}/items"
        added = await call(listener, "POST", path, {"items": [said("user", x) for x in "xy"]})
        assert texts(added["data"]) == [("user", "x"), ("user", "y")]
        listed = await items(listener, id_)
        assert listed[2:] == added["data"]
        assert await call(listener, "GET", f"{path}/{listed[1]['id']}") == listed[1]
        for gone in (listed[0], listed[3]):  # one of a response, and one that was added
            await call(listener, "DELETE", f"{path}/{gone['id']}")
            await call(listener, "GET", f"{path}/{gone['id']}", status=404)
        assert await items(listener, id_) == [listed[1], listed[2]]
        await respond(listener, id_, "b")
        assert upstream.prompts[-1] == "assistant: user: a user: x\n\nb"
        for wrong in ([], [said("user", "x")] * 21, [{"type": "what"}], [{"role": "user"}]):
            await call(listener, "POST", path, {"items": wrong}, status=400)


async def test_what_a_query_cannot_ask_for_is_named_or_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        path = f"{PATH}/{id_}/items"
        token = {"Authorization": "Bearer t"}
        include = "include[]=message.output_text.logprobs"
        more = {"items": [said("user", "a")], "extra_body": None}
        reply = await send(listener, "POST", f"{path}?{include}", more, token)
        (added,) = (await reply.json())["data"]
        assert reply.headers["x-llcuda-ignored"] == "include[], extra_body"
        for where in (f"{path}?limit=1&{include}", f"{path}/{added['id']}?{include}"):
            reply = await send(listener, "GET", where, None, token)
            assert reply.status == 200
            assert reply.headers["x-llcuda-ignored"] == "include[]"
        for method, where in (
            ("GET", f"{path}?before=x"),
            ("GET", f"{path}/{added['id']}?before=x"),
            ("POST", f"{path}?before=x"),
            ("GET", f"{PATH}?before=x"),
        ):
            body = {"items": [said("user", "b")]} if method == "POST" else None
            error = await call(listener, method, where, body, 400)
            assert error["error"]["message"].startswith("there is no parameter 'before'")
        assert len(await items(listener, id_)) == 1


async def test_a_request_that_is_sent_again_is_one_response(
    tmp_path: Path, autojump_clock: object
) -> None:
    upstream = FakeUpstream()
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a")
        first = await respond(listener, id_, "b", headers=key)
        again = await respond(listener, id_, "b", headers=key)
        assert again["id"] == first["id"]
        assert len(upstream.prompts) == 2
        await respond(listener, id_, "c", 409, headers=key)
    async with running(tmp_path) as listener:  # the key means it after a restart, too
        assert (await respond(listener, id_, "b", headers=key))["id"] == first["id"]
        assert len(await items(listener, id_)) == 4


async def test_the_retry_of_an_sdk_joins_what_it_has_begun(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        body = {"input": "a b", "conversation": id_}
        first = {"Authorization": "Bearer t", "x-stainless-retry-count": "0"}
        _, stream = await ask(listener, "POST", RESPONSES, body, first)
        while not upstream.active:
            await call(listener, "GET", PATH)
        await stream.aclose()
        again = {**first, "x-stainless-retry-count": "1"}
        connection, stream = await ask(listener, "POST", RESPONSES, body, again)
        upstream.release(9)
        answer = await (await reply(connection, stream)).json()
        assert answer["output"][0]["content"][0]["text"] == "user: a b"
        assert len(upstream.prompts) == 1
        assert len(await items(listener, id_)) == 2
        # Another request is no retry of that one, whatever its headers say.
        upstream.release(9)
        await respond(listener, id_, "c", headers={"x-stainless-retry-count": "1"})
        assert upstream.prompts[-1] == "user: a b assistant: user: a b user: c"


async def test_while_a_response_runs_the_next_one_is_refused(
    tmp_path: Path, autojump_clock: object
) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        under_way = await respond(listener, id_, "a b", background=True)
        refused = await respond(listener, id_, "c", 409)
        assert refused["error"]["code"] == "conversation_locked"
        assert under_way["id"] in refused["error"]["message"]
        assert texts(await items(listener, id_))[0] == ("user", "a b")  # what there is so far
        ended = {"status": ""}
        while ended["status"] != "cancelled":  # it is stored in a thread, while time may fly
            ended = await call(listener, "POST", f"{RESPONSES}/{under_way['id']}/cancel")
        upstream.release(9)
        await respond(listener, id_, "c")


async def test_of_many_at_once_one_is_taken(tmp_path: Path) -> None:
    upstream = paused()
    statuses = []
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        body = {"input": "a", "conversation": id_, "background": True}

        async def one() -> None:
            answer = await send(listener, "POST", RESPONSES, body, {"Authorization": "Bearer t"})
            statuses.append(answer.status)
            await answer.json()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert sorted(statuses) == [200, 409, 409, 409, 409]
        upstream.release(9)
        assert len(upstream.prompts) == 1


async def test_what_a_kill_left_outside_comes_in_with_its_key(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        with monkeypatch.context() as patch:  # as if it was killed before the response was added
            patch.setattr(entries, "add_generation", lambda *_, **__: None)
            first = await respond(listener, id_, "a", headers=key)
        assert await items(listener, id_) == []
    async with running(tmp_path) as listener:
        assert await respond(listener, id_, "a", headers=key) == first
        assert texts(await items(listener, id_))[0] == ("user", "a")


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_key_means_a_response_of_one_conversation(
    tmp_path: Path, autojump_clock: object, restarted: bool
) -> None:
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path) as listener:
        ids = [await begin(listener) for _ in range(2)]
        await respond(listener, ids[0], "a", headers=key)
        if not restarted:
            await respond(listener, ids[1], "a", 409, headers=key)
    if restarted:
        async with running(tmp_path) as listener:
            await respond(listener, ids[1], "a", 409, headers=key)
            await call(listener, "POST", RESPONSES, {"input": "a"}, 409, key)


async def test_a_retry_joins_no_response_of_another_conversation(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        ids = [await begin(listener) for _ in range(2)]
        first = {"Authorization": "Bearer t", "x-stainless-retry-count": "0"}
        body = {"input": "a", "conversation": ids[0]}
        _, stream = await ask(listener, "POST", RESPONSES, body, first)
        while not upstream.active:
            await call(listener, "GET", PATH)
        await stream.aclose()
        upstream.release(99)
        again = {"x-stainless-retry-count": "1"}
        await respond(listener, ids[1], "a", headers=again)
        assert len(upstream.prompts) == 2
        assert len(await items(listener, ids[1])) == 2


async def test_what_was_deleted_is_gone_from_it(tmp_path: Path, autojump_clock: object) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        first = await respond(listener, id_, "a")
        await respond(listener, id_, "b")
        await call(listener, "DELETE", f"{RESPONSES}/{first['id']}")
        assert texts(await items(listener, id_))[0] == ("user", "b")


async def test_it_is_seen_by_its_user_alone(tmp_path: Path, autojump_clock: object) -> None:
    async with running(tmp_path, users=USERS) as listener:
        id_ = await begin(listener, items=[said("user", "secret")])
        bob = {"Authorization": "Bearer u"}
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"title": "mine"}),
            ("DELETE", "", None),
            ("GET", "/items", None),
            ("POST", "/items", {"items": [said("user", "x")]}),
        ):
            await call(listener, method, f"{PATH}/{id_}{path}", body, 404, bob)
        assert (await call(listener, "GET", PATH, headers=bob))["data"] == []
        refused = await respond(listener, id_, "x", 404, bob)
        assert refused["error"]["param"] == "conversation"
        assert len(await items(listener, id_)) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"instead_of": "resp_1"}, "instead_of"),
        ({"previous_response_id": "resp_1", "instead_of": "resp_1"}, "instead_of"),
        ({"store": False}, "store"),
        ({"conversation": {"id": 5}}, "conversation.id"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    fields: dict[str, Any], param: str, tmp_path: Path, autojump_clock: object
) -> None:
    async with running(tmp_path) as listener:
        body = {"input": "a", "conversation": await begin(listener), **fields}
        refused = await call(listener, "POST", RESPONSES, body, 400)
        assert refused["error"]["param"] == param


async def test_what_is_erased_is_no_part_of_one(tmp_path: Path, autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        refused = await respond(
            listener, await begin(listener), "a", 400, {"x-llcuda-store": "false"}
        )
        assert refused["error"]["param"] == "conversation"
        assert upstream.prompts == []


async def test_a_full_conversation_takes_no_response(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MOST_ENTRIES", 1)
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, items=[said("user", "x")])
        refused = await respond(listener, id_, "a", 400)
        assert "at most 1" in refused["error"]["message"]
        assert upstream.active == 0  # what had begun was cancelled


async def test_a_server_that_keeps_nothing_has_none(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        refused = await call(listener, "POST", PATH, {}, 400)
        assert refused["error"]["code"] == "unsupported"
        assert "--data-dir" in refused["error"]["message"]
