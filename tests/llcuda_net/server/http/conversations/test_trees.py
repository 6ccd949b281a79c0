"""Versions of a response side by side, and where in a conversation a response stands."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.responses import conversation as chains
from llcuda_net.server.http.responses.body import ResponseBody
from llcuda_net.server.http.responses.earlier import Place
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.conversations import Conversation
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
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused
from tests.support.server.sse_client import ask, reply, send


class Talk:
    """A conversation whose answers are numbered: "yes 1", "yes 2" …"""

    def __init__(self, listener: MemoryListener, upstream: FakeUpstream, id_: str) -> None:
        self.listener, self.upstream, self.id = listener, upstream, id_
        self.count = 0

    async def ask(self, text: str, status: int = 200, **more: Any) -> str:
        """The id of the answer."""
        self.count += 1
        self.upstream.answer = [(f"yes {self.count}", None)]
        found = await respond(self.listener, self.id, text, status, tools=[TOOL], **more)
        return str(found["id"]) if status == 200 else str(found["error"]["message"])

    @property
    def told(self) -> list[str]:
        """What the model was told last."""
        return [message["content"] for message in self.upstream.chats[-1][0]]

    async def path(self) -> list[str]:
        """The texts of the active path."""
        return [text for _, text in texts(await items(self.listener, self.id))]


async def talk(listener: MemoryListener, upstream: FakeUpstream, **fields: Any) -> Talk:
    return Talk(listener, upstream, await begin(listener, **fields))


async def test_versions_stand_side_by_side(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream, items=[said("user", "hello")])
        first = await one.ask("a")
        await one.ask("b")
        again = await one.ask("a", instead_of=first)
        assert one.told == ["hello\n\na"]
        assert await one.path() == ["hello", "a", "yes 3"]
        edited = await one.ask("c", instead_of=again)
        assert one.told == ["hello\n\nc"]
        await one.ask("d")  # goes on from the last one that was added
        assert one.told == ["hello\n\nc", "yes 4", "d"]
        # Behind any of them, also where that goes on already.
        await one.ask("e", previous_response_id=first)
        assert one.told == ["hello\n\na", "yes 1", "e"]
        await one.ask("f", previous_response_id=edited)
        assert one.told == ["hello\n\nc", "yes 4", "f"]
        assert await one.path() == ["hello", "c", "yes 4", "f", "yes 7"]
    async with running(tmp_path, upstream := FakeUpstream()) as listener:
        one.listener, one.upstream = listener, upstream
        await one.ask("g", previous_response_id=again)
        assert one.told == ["hello\n\na", "yes 3", "g"]


async def test_a_response_says_where_it_stands(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream)
        first = await one.ask("a")
        again = await respond(listener, one.id, "a", instead_of=first)
        assert again["llcuda"]["instead_of"] == first
        behind = await respond(listener, one.id, "b", previous_response_id=again["id"])
        assert behind["previous_response_id"] == again["id"]
        assert "instead_of" not in behind["llcuda"]
        shown = await call(listener, "GET", f"{RESPONSES}/{again['id']}")
        assert shown == again


async def test_its_tokens_are_counted_where_it_would_stand(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        first = await respond(listener, id_, "a b c")

        async def count(**more: Any) -> int:
            body = {"conversation": id_, "input": "d", **more}
            found = await call(listener, "POST", f"{RESPONSES}/input_tokens", body)
            return int(found["input_tokens"])

        alone = await count(instead_of=first["id"])
        assert alone < await count() == await count(previous_response_id=first["id"])


async def test_an_item_is_gone_on_from_and_stood_beside(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream, items=[said("user", "x"), said("user", "y")])
        x, y = (item["id"] for item in await items(listener, one.id))
        await one.ask("a", previous_response_id=x)
        assert one.told == ["x\n\na"]
        await one.ask("b", instead_of=y)
        assert one.told == ["x\n\nb"]
        await one.ask("c", instead_of=x)
        assert one.told == ["c"]


async def test_what_is_not_of_it_is_refused(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream, users=USERS) as listener:
        one, other = [await talk(listener, upstream) for _ in range(2)]
        mine, elsewhere = await one.ask("a"), await other.ask("a")
        deleted = await one.ask("b")
        await call(listener, "DELETE", f"{RESPONSES}/{deleted}")
        for field in ("previous_response_id", "instead_of"):
            for id_ in (elsewhere, deleted, "resp_0", "x"):
                place: Any = {field: id_}
                refused = await respond(listener, one.id, "c", 400, **place)
                assert refused["error"]["code"] == "previous_response_not_found"
                assert refused["error"]["param"] == field
        bob = {"Authorization": "Bearer u"}
        of_bob = (await call(listener, "POST", PATH, {}, headers=bob))["id"]
        body = {"input": "c", "conversation": of_bob, "previous_response_id": mine}
        refused = await call(listener, "POST", RESPONSES, body, 400, bob)
        assert refused["error"]["code"] == "previous_response_not_found"
        assert len(await items(listener, one.id)) == 2


async def test_only_what_it_goes_on_from_locks(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        first = await respond(listener, id_, "a", background=True)
        beside = await respond(listener, id_, "b", background=True, instead_of=first["id"])
        for behind in (first["id"], beside["id"]):
            refused = await respond(listener, id_, "c", 409, previous_response_id=behind)
            assert refused["error"]["code"] == "conversation_locked"
            assert behind in refused["error"]["message"]
        await respond(listener, id_, "c", 409)
        upstream.release(4)
        ended = {"status": ""}
        while ended["status"] != "completed":
            ended = await call(listener, "GET", f"{RESPONSES}/{first['id']}")
            upstream.release()
        await respond(listener, id_, "c", background=True, previous_response_id=first["id"])


async def test_one_stands_beside_what_has_failed(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream)
        await one.ask("a")
        upstream.failure = InvalidRequest("broken")
        failed = await respond(listener, one.id, "b", tools=[TOOL], background=True)
        while failed["status"] != "failed":
            failed = await call(listener, "GET", f"{RESPONSES}/{failed['id']}")
        upstream.failure = None
        await one.ask("c")  # behind it: it is left out
        assert one.told == ["a", "yes 1", "c"]
        await one.ask("b", instead_of=failed["id"])
        assert one.told == ["a", "yes 1", "b"]
        assert await one.path() == ["a", "yes 1", "b", "yes 3"]


@pytest.mark.parametrize("field", ["instead_of", "previous_response_id"])
async def test_one_that_is_sent_again_is_one_where_it_stood(tmp_path: Path, field: str) -> None:
    upstream = FakeUpstream()
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream)
        await one.ask("a")
        second = await one.ask("b")
        place: Any = {field: second}
        made = await one.ask("c", headers=key, **place)
        told = one.told
        await one.ask("d", instead_of=second)
        assert await one.ask("c", headers=key, **place) == made
        assert len(upstream.chats) == 4
        (other,) = {"instead_of", "previous_response_id"} - {field}
        elsewhere: Any = {other: second}
        await one.ask("c", 409, headers=key, **elsewhere)
    async with running(tmp_path, upstream := FakeUpstream()) as listener:
        one.listener, one.upstream = listener, upstream
        assert await one.ask("c", headers=key, **place) == made
        assert upstream.chats == []
        assert await one.path() == ["a", "yes 1", "d", "yes 4"]  # nothing has moved
        await one.ask("e", previous_response_id=made)
        assert one.told == [*told, "yes 3", "e"]


async def test_what_a_kill_left_outside_comes_in_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though others were added meanwhile."""
    upstream = FakeUpstream()
    key = {"Idempotency-Key": "k"}
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream)
        await one.ask("a")
        with monkeypatch.context() as patch:  # as if it was killed before the response was added
            patch.setattr(entries, "add_generation", lambda *_, **__: None)
            made = await one.ask("b", headers=key)
        await one.ask("c")
    async with running(tmp_path, upstream := FakeUpstream()) as listener:
        one.listener, one.upstream = listener, upstream
        assert await one.ask("b", headers=key) == made
        assert upstream.chats == []
        assert await one.path() == ["a", "yes 1", "b", "yes 2"]


async def test_the_retry_of_an_sdk_finds_its_own_though_others_were_added(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        body = {"input": "a b", "conversation": id_}
        first = {"Authorization": "Bearer t", "x-stainless-retry-count": "0"}
        _, stream = await ask(listener, "POST", RESPONSES, body, first)
        listed: list[dict[str, Any]] = []
        while not listed:
            listed = await items(listener, id_)
        begun = "resp_" + listed[0]["id"].split("_")[1]
        # The same question once more, beside it, by somebody else: another response.
        beside = await respond(listener, id_, "a b", background=True, instead_of=begun)
        assert beside["id"] != begun
        await stream.aclose()
        again = {**first, "x-stainless-retry-count": "1"}
        connection, stream = await ask(listener, "POST", RESPONSES, body, again)
        upstream.release(99)
        answer = await (await reply(connection, stream)).json()
        assert answer["id"] == begun
        assert len(upstream.prompts) == 2


async def test_the_retry_of_a_version_joins_that_version(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        first = await respond(listener, id_, "a b", background=True)
        body = {"input": "a b", "conversation": id_, "instead_of": first["id"], "background": True}
        token = {"Authorization": "Bearer t"}
        made = []
        for count in ("0", "1", "2"):
            headers = {**token, "x-stainless-retry-count": count}
            found = await (await send(listener, "POST", RESPONSES, body, headers)).json()
            made.append(found["id"])
        assert len({*made, first["id"]}) == 2
        upstream.release(99)


ANSWERS: dict[str, tuple[str, Any, list[str]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [said("system", "be kind"), said("user", "q")]},
        ["be kind", "q"],
    ),
    "completion": ("/v1/completions", {"prompt": "q"}, ["q"]),
    "message": ("/v1/messages", {"messages": [said("user", "q")], "max_tokens": 9}, ["q"]),
    "response": (RESPONSES, {"input": "q", "instructions": "short"}, ["q"]),
}


@pytest.mark.parametrize("api", ANSWERS)
async def test_an_empty_conversation_begins_with_any_answer(tmp_path: Path, api: str) -> None:
    upstream = FakeUpstream()
    path, body, asked = ANSWERS[api]
    if "messages" in body:
        body["messages"] = [
            {name: one[name] for name in ("role", "content")} for one in body["messages"]
        ]
    key = {"Idempotency-Key": "k"}
    token = {"Authorization": "Bearer t"}
    async with running(tmp_path, upstream) as listener:
        made = await send(listener, "POST", path, {"model": "fake", **body}, token)
        id_ = (await made.json())["id"]
        (generation,) = made.generations
        answer = (await call(listener, "GET", f"/v1/generations/{generation}"))["text"]
        for named in (id_, generation):
            if api == "message" and named == id_:
                continue
            one = await talk(listener, upstream)
            again = await one.ask("b", previous_response_id=named, headers=key)
            assert one.told == [*asked, answer, "b"]
            assert await one.path() == [*asked, answer, "b", f"yes {one.count}"]
            assert (await call(listener, "GET", f"{PATH}/{one.id}"))["preview"] == "q"
            # Sent again, it is the same, though the conversation is no longer empty.
            assert await one.ask("b", previous_response_id=named, headers=key) == again
            assert await one.path() == [*asked, answer, "b", "yes 1"]
            await one.ask("c", instead_of=again)
            assert one.told == [*asked, answer, "c"]
            await one.ask("d")
            assert one.told == [*asked, answer, "c", "yes 3", "d"]
            key = {"Idempotency-Key": "l"}


async def test_what_an_answer_went_on_from_elsewhere_comes_with_it(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        upstream.answer = [("one", None)]
        first = await call(listener, "POST", RESPONSES, {"input": "a", "tools": [TOOL]})
        body = {"input": "b", "tools": [TOOL], "previous_response_id": first["id"]}
        second = await call(listener, "POST", RESPONSES, body)
        one = await talk(listener, upstream)
        await one.ask("c", previous_response_id=second["id"])
        assert one.told == ["a", "one", "b", "one", "c"]
        listed = await items(listener, one.id)
        assert texts(listed)[:2] == [("user", "a"), ("assistant", "one")]
        assert len({item["id"] for item in listed}) == 6
        # Each item is one: it can be named, and deleted.
        given = [{"type": "item_reference", "id": listed[1]["id"]}, said("user", "x")]
        await call(listener, "POST", RESPONSES, {"input": given, "tools": [TOOL]})
        assert one.told == ["one", "x"]
        await call(listener, "DELETE", f"{PATH}/{one.id}/items/{listed[1]['id']}")
        await one.ask("d")
        assert one.told == ["a\n\nb", "one", "c", "yes 1", "d"]
        # And one of a conversation begins another one.
        fork = await talk(listener, upstream)
        await fork.ask("e", previous_response_id=second["id"])
        assert fork.told == ["a", "one", "b", "one", "e"]
        last = "resp_" + (await items(listener, one.id))[-1]["id"].split("_")[1]
        fork = await talk(listener, upstream)
        await fork.ask("f", previous_response_id=last)
        assert fork.told[-3:] == ["d", "yes 2", "f"]
        assert fork.told == ["a\n\nb", "one", "c", "yes 1", "d", "yes 2", "f"]


async def test_what_no_conversation_can_begin_with_is_refused(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream, users=USERS) as listener:

        async def begun(path: str, body: Any, token: str = "t") -> str:
            headers = {"Authorization": f"Bearer {token}"}
            answer = await send(listener, "POST", path, {"model": "fake", **body}, headers)
            await answer.json()
            return answer.generations[0]

        ids = await begun("/v1/completions", {"prompt": [1, 2, 3]})
        transient = await begun(RESPONSES, {"input": "a", "store": False})
        of_bob = await begun(RESPONSES, {"input": "a"}, "u")
        mine = await begun(RESPONSES, {"input": "a"})
        upstream.failure = InvalidRequest("broken")
        failed = await begun(RESPONSES, {"input": "a", "background": True})
        while (await call(listener, "GET", f"{RESPONSES}/{failed}"))["status"] != "failed":
            pass
        upstream.failure = None
        one = await talk(listener, upstream)
        for id_, why in (
            (ids, "token ids"),
            (transient, "not stored"),
            (of_bob, "no response"),
            (failed, "failed"),
            ("resp_0", "no response"),
        ):
            assert why in await one.ask("b", 400, previous_response_id=id_)
        assert await one.path() == []
        upstream.paused = True
        runs = await begun(RESPONSES, {"input": "a", "background": True})
        assert "still runs" in await one.ask("b", 409, previous_response_id=runs)
        upstream.release(99)
        upstream.paused = False
        await one.ask("b", previous_response_id=mine)
        other = await begun(RESPONSES, {"input": "a"})
        assert "no response" in await one.ask("c", 400, previous_response_id=other)


async def test_deleted_parts_of_a_path_are_left_out_of_it(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream, items=[said("user", "x")])
        first = await one.ask("a")
        second = await one.ask("b")
        third = await one.ask("c")
        x, *_ = await items(listener, one.id)
        await call(listener, "DELETE", f"{RESPONSES}/{second}")
        await one.ask("d", previous_response_id=third)
        assert one.told == ["x\n\na", "yes 1", "c", "yes 3", "d"]
        await call(listener, "DELETE", f"{PATH}/{one.id}/items/{x['id']}")
        await one.ask("e", instead_of=third)
        assert one.told == ["a", "yes 1", "e"]
        await one.ask("f", instead_of=first)
        assert one.told == ["f"]


@pytest.mark.parametrize("seed", range(3))
async def test_paths_are_what_they_say_whatever_happens(tmp_path: Path, seed: int) -> None:
    """By the short way (the last response's request) and by reading all of it."""
    chance = Random(seed)
    upstream = FakeUpstream()
    async with running(tmp_path, upstream) as listener:
        one = await talk(listener, upstream)
        #: By id, what the entry goes on from and its texts; of one that was deleted, none.
        known: dict[str, tuple[str, list[str]]] = {}

        def path(end: str) -> list[str]:
            found: list[str] = []
            while end:
                end, said_ = known[end]
                found = said_ + found
            return found

        def flat(messages: list[str]) -> list[str]:
            return [part for text in messages for part in text.split("\n\n")]

        last = ""
        for n in range(40):
            alive = [id_ for id_, (_, said_) in known.items() if said_]
            does = chance.choice(["behind"] * 3 + ["beside"] * 2 + ["end"] * 2 + ["item", "delete"])
            if does == "item":
                body = {"items": [said("user", f"item {n}")]}
                added = await call(listener, "POST", f"{PATH}/{one.id}/items", body)
                id_ = added["data"][0]["id"]
                known[id_], last = (last, [f"item {n}"]), id_
            elif does == "delete" and alive:
                gone = chance.choice(alive)
                if gone.startswith("resp_"):
                    await call(listener, "DELETE", f"{RESPONSES}/{gone}")
                    known[gone] = known[gone][0], []
                else:
                    await call(listener, "DELETE", f"{PATH}/{one.id}/items/{gone}")
                    above = known.pop(gone)[0]
                    for id_, (of, said_) in known.items():
                        known[id_] = above if of == gone else of, said_
                    last = above if last == gone else last
            elif does in ("behind", "beside", "end"):
                more: dict[str, Any] = {}
                at = last
                if does != "end" and alive:
                    named = chance.choice(alive)
                    at = named if does == "behind" else known[named][0]
                    more = {
                        "previous_response_id" if does == "behind" else "instead_of": named,
                    }
                id_ = await one.ask(f"ask {n}", **more)
                assert flat(one.told) == [*path(at), f"ask {n}"]
                known[id_], last = (at, [f"ask {n}", f"yes {one.count}"]), id_
            assert await one.path() == path(last)


async def test_a_conversation_that_is_gone_takes_no_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        place = chains.place

        async def late(exchange: Exchange, found: Conversation, body: ResponseBody) -> Place:
            await exchange.host.objects.write(lambda db: conversations.delete(db, found))
            return await place(exchange, found, body)

        monkeypatch.setattr(chains, "place", late)
        refused = await respond(listener, id_, "a", 400)
        assert "deleted" in refused["error"]["message"]
        while upstream.active:  # what had begun is cancelled
            await call(listener, "GET", PATH)
