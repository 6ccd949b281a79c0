"""What there is to see of a conversation, in pages: each entry, and where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.generation.generation import Generation
from llcuda_net.server.http.conversations import pages
from llcuda_net.server.http.delivery.deliver import find
from llcuda_net.server.http.exchange import Exchange
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
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused
from tests.support.server.sse_client import send

TOKEN = {"Authorization": "Bearer t"}


async def listed(listener: MemoryListener, id_: str, query: str = "order=asc") -> Any:
    return await call(listener, "GET", f"{PATH}/{id_}/responses?{query}")


def named(document: Any) -> list[str]:
    return [one["id"] for one in document["data"]]


async def test_each_response_says_all_of_it(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    upstream.answer = [("hm", Channel(REASONING)), ("*yes*", None)]
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, title="t")
        more: dict[str, Any] = {"instructions": "short", "temperature": 0.5, "top_k": 3, "seed": 7}
        more |= {"max_output_tokens": 9, "metadata": {"a": "b"}, "top_logprobs": 2}
        more["include"] = ["message.output_text.logprobs"]
        first = await respond(listener, id_, "a", tools=[TOOL], **more)
        document = await listed(listener, id_, "render=html")
        (node,) = document["data"]
        shown = await call(listener, "GET", f"/v1/generations/{node['generation']}")
    assert document["active"] == node["id"] == first["id"]
    assert document["conversation"]["id"] == id_
    assert (node["previous"], node["versions"]) == (None, [first["id"]])
    assert texts(node["input"]) == [("user", "a")]
    assert [one["type"] for one in node["output"]] == ["reasoning", "message"]
    assert node["output"][1]["content"][0]["logprobs"] == []
    assert (node["text"], node["reasoning"]) == ("*yes*", "hm")
    assert (node["status"], node["error"], node["model"]) == ("completed", None, "fake")
    assert (node["instructions"], node["seed"], node["max_output_tokens"]) == ("short", 7, 9)
    assert node["sampling"] == {"temperature": 0.5, "top_k": 3}
    assert node["logprobs"] == 2
    assert node["metadata"] == {"a": "b"}
    assert node["usage"] == first["usage"]
    assert node["timings"] == shown["timings"]
    assert node["created_at"] == shown["created"]
    assert node["completed_at"] == shown["finished"]
    assert [block["channel"] for block in node["blocks"]] == ["reasoning", "text"]
    assert node["blocks"][1]["html"] == "<p><em>yes</em></p>\n"
    assert shown["conversation"] == id_


async def test_they_say_what_they_go_on_from_and_which_versions_there_are(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener, items=[said("user", "x"), said("assistant", "*y*")])
        a = (await respond(listener, id_, "a"))["id"]
        b = (await respond(listener, id_, "b"))["id"]
        a2 = (await respond(listener, id_, "a", instead_of=a))["id"]
        c = (await respond(listener, id_, "c", previous_response_id=b))["id"]
        document = await listed(listener, id_, "order=asc&render=html")
        x, y, *rest = named(document)
        assert rest == [a, b, a2, c]
        assert [one["previous"] for one in document["data"]] == [None, x, y, a, y, b]
        versions = [one["versions"] for one in document["data"]]
        assert versions == [[x], [y], [a, a2], [b], [a, a2], [c]]
        assert document["active"] == c
        item = document["data"][1]
        assert (item["type"], item["output"]) == ("item", [])
        assert item["blocks"][0]["html"] == "<p><em>y</em></p>\n"
        assert document["data"][0]["blocks"] == []
        # Newest first, in pages.
        first = await listed(listener, id_, "limit=4")
        assert named(first) == [c, a2, b, a]
        assert first["has_more"]
        assert named(await listed(listener, id_, f"after={first['last_id']}")) == [y, x]
        # Paths: the active one, and one through each.
        assert named(await listed(listener, id_, "path=active")) == [c, b, a, y, x]
        assert named(await listed(listener, id_, f"path={a2}&order=asc")) == [x, y, a2]
        assert named(await listed(listener, id_, f"path={a}&order=asc")) == [x, y, a, b, c]
        assert named(await listed(listener, id_, f"path={y}&order=asc")) == [x, y, a, b, c]
        page = await listed(listener, id_, f"path=active&after={a}")
        assert named(page) == [y, x]
        assert not page["has_more"]
        for wrong in ("path=resp_0", "after=resp_0", f"path={a2}&after={a}"):
            await call(listener, "GET", f"{PATH}/{id_}/responses?{wrong}", status=404)
        for wrong in ("limit=0", "order=x", "render=pdf", "before=x"):
            await call(listener, "GET", f"{PATH}/{id_}/responses?{wrong}", status=400)


async def test_what_is_deleted_is_no_entry_and_its_items_are_not_shown(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    call_ = Channel(TOOL_CALL, 0, "call_1", "f")
    upstream.answer = [("hm", Channel(REASONING)), ("yes", None), ("", call_), ("{}", call_)]
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        a, b, c = [(await respond(listener, id_, x, tools=[TOOL]))["id"] for x in "abc"]
        await call(listener, "DELETE", f"{RESPONSES}/{b}")
        document = await listed(listener, id_)
        assert named(document) == [a, c]
        assert document["data"][1]["previous"] == a
        beside = (await respond(listener, id_, "d", tools=[TOOL], instead_of=c))["id"]
        assert (await listed(listener, id_))["data"][1]["versions"] == [c, beside]
        node = document["data"][0]
        kinds = ["reasoning", "text", "tool_call"]
        for place, gone in enumerate(node["output"]):
            await call(listener, "DELETE", f"{PATH}/{id_}/items/{gone['id']}")
            node = (await listed(listener, id_, "order=asc&render=html&limit=1"))["data"][0]
            assert [one["channel"] for one in node["blocks"]] == kinds[place + 1 :]
            assert len(node["output"]) == 2 - place
        assert (node["text"], node["reasoning"]) == ("", None)
        await call(listener, "DELETE", f"{PATH}/{id_}/items/{node['input'][0]['id']}")
        assert (await listed(listener, id_, "order=asc&limit=1"))["data"][0]["input"] == []


async def test_one_that_runs_is_there_as_far_as_it_came(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a b c", background=True)
        upstream.release(2)
        node: dict[str, Any] = {"tokens": 0}
        while node["tokens"] < 2:
            (node,) = (await listed(listener, id_, "render=html"))["data"]
        assert (node["status"], node["text"]) == ("in_progress", "user: a")
        assert (node["usage"], node["timings"], node["completed_at"]) == (None, None, None)
        assert node["blocks"] == [{"n": 0, "channel": "text", "html": "<p>user: a</p>\n"}]
        upstream.release(99)


async def test_one_that_ends_while_it_is_read_has_its_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = paused()

    async def ended(exchange: Exchange, id_: str) -> Generation:
        generation = await find(exchange, id_)
        upstream.release(99)
        while not generation.ended:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)
        generation.shelve()  # memory has let go what it was asked
        return generation

    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a", background=True)
        monkeypatch.setattr(pages, "find", ended)
        (node,) = (await listed(listener, id_))["data"]
        assert texts(node["input"]) == [("user", "a")]
        assert node["status"] == "completed"


async def test_one_that_failed_says_why(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    upstream.failure = InvalidRequest("broken")
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a", background=True)
        node: dict[str, Any] = {"status": ""}
        while node["status"] != "failed":
            (node,) = (await listed(listener, id_))["data"]
        assert "broken" in node["error"]["message"]
        assert texts(node["input"]) == [("user", "a")]


async def test_an_answer_that_was_begun_elsewhere_shows_all_that_it_was_asked(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as listener:
        first = await call(listener, "POST", RESPONSES, {"input": "a"})
        body = {"input": "b", "previous_response_id": first["id"]}
        second = await call(listener, "POST", RESPONSES, body)
        id_ = await begin(listener)
        third = await respond(listener, id_, "c", previous_response_id=second["id"])
        one, two = (await listed(listener, id_))["data"]
        assert (one["id"], two["id"]) == (second["id"], third["id"])
        assert [text for _, text in texts(one["input"])][::2] == ["a", "b"]
        assert texts(two["input"]) == [("user", "c")]
        tokens = {"model": "fake", "prompt": [1, 2, 3]}
        answer = await send(listener, "POST", "/v1/completions", tokens, TOKEN)
        await answer.json()
        shown = await call(listener, "GET", f"/v1/generations/{answer.generations[0]}")
        assert shown["conversation"] is None


async def test_a_page_says_whether_anything_has_changed(tmp_path: Path) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener)
        path = f"{PATH}/{id_}/responses"
        known: list[str] = []

        async def is_new() -> bool:
            headers = TOKEN | ({"If-None-Match": f'"x", W/{known[-1]}'} if known else {})
            answer = await send(listener, "GET", path, None, headers)
            body = await answer.body()
            if answer.status == 304:
                assert (body, answer.headers["etag"]) == (b"", known[-1])
                return False
            assert answer.headers["etag"] not in known
            known.append(answer.headers["etag"])
            return True

        assert await is_new()
        assert not await is_new()
        made = await respond(listener, id_, "a", background=True)
        assert await is_new()
        upstream.release(1)
        while not await is_new():
            pass
        upstream.release(99)
        ended = {"status": ""}
        while ended["status"] != "completed":
            ended = await call(listener, "GET", f"{RESPONSES}/{made['id']}")
        assert await is_new()
        await call(listener, "POST", f"{PATH}/{id_}", {"title": "t"})
        assert await is_new()
        (item, _) = await items(listener, id_)
        await call(listener, "DELETE", f"{PATH}/{id_}/items/{item['id']}")
        assert await is_new()
        await call(listener, "DELETE", f"{RESPONSES}/{made['id']}")
        assert await is_new()
        assert not await is_new()


async def test_a_large_page_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MOST", 10)
    monkeypatch.setattr(pages, "_STEP", 2)
    async with running(tmp_path) as listener:
        id_ = await begin(listener, items=[said("user", x) for x in "abcde"])
        found: list[str] = []
        query = "limit=9"
        while True:
            page = await listed(listener, id_, query)
            assert len(page["data"]) <= 2
            found += named(page)
            if not page["has_more"]:
                break
            query = f"limit=9&after={page['last_id']}"
        assert found == named(await listed(listener, id_, "limit=1")) + found[1:]
        assert len(set(found)) == 5


async def test_others_see_nothing_of_it(tmp_path: Path) -> None:
    async with running(tmp_path, users=USERS) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a")
        bob = {"Authorization": "Bearer u"}
        for path in ("responses", "export"):
            await call(listener, "GET", f"{PATH}/{id_}/{path}", None, 404, bob)
        await call(listener, "DELETE", f"{PATH}/{id_}?responses=true", None, 404, bob)
        assert (await call(listener, "GET", f"{PATH}?q=a", None, 200, bob))["data"] == []
        assert len((await listed(listener, id_))["data"]) == 1


async def test_lists_of_generations_say_of_which_conversation_they_are(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "findable words")
        await call(listener, "POST", RESPONSES, {"input": "other findable words"})
        found = (await call(listener, "GET", "/v1/generations"))["data"]
        assert [one["conversation"] for one in found] == [None, id_]
        hits: list[Any] = []
        while len(hits) < 2:  # once they are indexed
            hits = (await call(listener, "GET", "/v1/generations?q=findable"))["data"]
        assert sorted(str(one["conversation"]) for one in hits) == sorted(["None", id_])


async def test_conversations_are_found_by_words_and_by_pins(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        titled = await begin(listener, title="Slots and tokens", pinned=True)
        asked = await begin(listener)
        await respond(listener, asked, "What is a SLOT?")

        async def found(query: str) -> list[str]:
            return named(await call(listener, "GET", f"{PATH}?{query}"))

        assert await found("q=slot") == [titled, asked]
        assert await found("q=slot&pinned=false") == [asked]
        assert await found("pinned=true") == [titled]
        assert await found("q=tokens+slots") == [titled]
        assert await found(f"q=slot&after={titled}") == [asked]
        shown = await call(listener, "GET", f"{PATH}/{asked}")
        assert (shown["preview"], shown["entries"]) == ("What is a SLOT?", 1)
        # What is deleted is found no more.
        (question, _) = await items(listener, asked)
        await call(listener, "DELETE", f"{RESPONSES}/{question['id'].split('_')[1]}")
        assert await found("q=slot") == [titled]
        # Also where it was deleted by somebody else than this server.
        made = await respond(listener, asked, "Another one")
        assert (await call(listener, "GET", f"{PATH}/{asked}"))["preview"] == "Another one"
        await listener.server.finder.delete(made["id"].removeprefix("resp_"), None)
        assert (await call(listener, "GET", PATH))["data"][1]["preview"] is None
        assert await found("q=another") == []
        for wrong in ("q=", "q=%20", f"q={'x' * 300}", "pinned=1"):
            await call(listener, "GET", f"{PATH}?{wrong}", status=400)


async def test_the_certainty_of_an_answer_of_any_api_can_be_read(tmp_path: Path) -> None:
    async with running(tmp_path) as listener:
        body = {"model": "fake", "messages": [{"role": "user", "content": "a"}]}
        more = {"logprobs": True, "top_logprobs": 1}
        answer = await send(listener, "POST", "/v1/chat/completions", {**body, **more}, TOKEN)
        await answer.json()
        id_ = await begin(listener)
        await respond(listener, id_, "b", previous_response_id=answer.generations[0])
        first, second = (await listed(listener, id_))["data"]
        assert (first["logprobs"], second["logprobs"]) == (1, None)

        async def tokens(node: Any, query: str) -> list[Any]:
            shown = await call(listener, "GET", f"{RESPONSES}/{node['id']}{query}")
            return list(shown["output"][0]["content"][0]["logprobs"])

        query = "?include[]=message.output_text.logprobs"
        assert len(await tokens(first, query)) == first["tokens"]
        assert await tokens(first, "") == []
        assert await tokens(second, query) == []


async def test_a_limit_that_nobody_asked_for_is_none(tmp_path: Path) -> None:
    """The context bounds each answer; who asks the next one as this was must not ask for that."""
    async with running(tmp_path) as listener:
        id_ = await begin(listener)
        await respond(listener, id_, "a")
        (node,) = (await listed(listener, id_))["data"]
    assert node["max_output_tokens"] is None
