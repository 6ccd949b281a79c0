"""The stream of a page: what runs, what ends, answers in blocks; and what it costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.generation.generation import Generation
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.events import stream as stream_module
from llcuda_net.server.http.events.running import MOST_RUNS
from llcuda_net.server.tcp.write_buffer import HIGH_WATER
from llcuda_net.storage.records import Switch, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.upstream.interface import CompletionEvent
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    all_quiet,
    paused,
    serving,
)
from tests.support.server.page_reader import follow
from tests.support.server.sse_client import CHAT, ask, chat, reply, send
from tests.support.storage.records import result

RESPONSES = "/v1/responses"


def put(folder: Path, number: int, **changes: Any) -> str:
    """A result in the store; its id."""
    store = SqliteStore(folder, write=True)
    store.put([result(number, **changes)])
    store.close()
    return result(number).id


async def begin(listener: MemoryListener, text: str, **fields: Any) -> str:
    """A response in the background; its generation."""
    body = {"model": "fake", "input": text, "background": True, **fields}
    return str((await (await send(listener, "POST", RESPONSES, body)).json())["id"])[5:]


async def test_what_runs_is_told_as_it_is_and_as_it_changes(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        first = await begin(listener, "a b")
        page = await follow(listener)
        assert page.reply.headers["content-type"] == "text/event-stream"
        event = await page.next()
        assert event is not None
        assert event["snapshot"]
        (run,) = event["runs"]
        assert (run["id"], run["api"], run["state"]) == (first, "response", "running")
        assert (run["preview"], run["model"], run["phase"]) == ("a b", "fake", "prompt")
        assert (run["queue"], run["tokens"], run["conversation"]) == (None, 0, None)
        second = await begin(listener, "c")
        await page.until(lambda: second in page.runs)
        await page.until(lambda: page.runs[second]["queue"])
        assert page.runs[second]["queue"]["position"] == 1
        assert page.runs[second]["phase"] == "queue"
        upstream.release(2)
        await page.until(lambda: page.runs[first]["tokens"] == 2)
        assert page.runs[first]["phase"] == "answer"
        assert page.runs[first]["text"] == "user: a"
        upstream.release(1)
        await page.until(lambda: first in page.ended)
        end = page.ended[first]
        assert (end["state"], end["finish_reason"], end["error"]) == ("done", "stop", None)
        assert end["usage"]["completion_tokens"] == 3
        assert end["timings"]["total"] > 0
        await page.until(lambda: page.runs[second]["queue"] is None)
        upstream.release(2)
        await page.until(lambda: second in page.ended)
        assert page.runs == {}
        assert not any(event.get("answers") for event in page.events)
        await page.reply.stream.aclose()


def say(server: Gateway, generation: Generation, *pieces: str) -> None:
    """What its upstream sends at once."""
    server._publisher.extend(generation, [CompletionEvent(piece, [0]) for piece in pieces])
    server._publisher.publish()


async def test_an_answer_comes_in_blocks_and_then_its_end(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        id_ = await begin(listener, "a")
        name = f"resp_{id_}"
        page = await follow(listener, name)
        await page.until(lambda: name in page.blocks)
        assert page.events[-1]["answers"][name] == {"epoch": 0}
        (generation,) = server.registry
        say(server, generation, "a\n\n*b")
        await page.until(lambda: page.text(name) == "a|*b")
        assert page.blocks[name] == [{"n": 0, "channel": "text", "html": "<p>a</p>\n"}]
        say(server, generation, "c", " d")
        await page.until(lambda: page.text(name) == "a|*bc d")
        assert page.events[-1]["answers"][name] == {"open": {"n": 1, "more": "c d"}}
        say(server, generation, "*\n")
        await page.until(lambda: page.text(name) == "a|bc d")
        upstream.release(9)
        await page.until(lambda: page.over)
        assert page.text(name) == "a|bc d\nuser: a"
        assert page.over[name]["state"] == "done"
        assert page.over[name]["id"] == id_
        await page.until(lambda: id_ in page.ended)
        assert not generation.readers
        await page.reply.stream.aclose()


async def test_nothing_is_done_per_token(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast it is, there are ten events a second, and nobody reads the generation."""
    upstream = paused()
    async with serving(upstream) as (server, listener):
        id_ = await begin(listener, "a")
        page = await follow(listener, id_)
        (generation,) = server.registry
        await page.until(lambda: id_ in page.blocks)
        for number in range(1000):
            say(server, generation, f"{number} ")
            await trio.sleep(0.001)
        assert generation.readers == []
        before = len(page.events)
        await page.until(lambda: page.text(id_).endswith("999"))
        assert len(page.events) - before <= 12
        await page.reply.stream.aclose()


async def test_who_comes_back_goes_on_with_the_block_that_it_lacks(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        id_ = await begin(listener, "a")
        (generation,) = server.registry
        say(server, generation, "a\n\n", "b\n\n", "c")
        page = await follow(listener, f"{id_}:1")
        await page.until(lambda: page.text(id_) == "b|c")
        assert [block["n"] for block in page.blocks[id_]] == [1]
        assert not any("reset" in e.get("answers", {}).get(id_, {}) for e in page.events)
        await page.reply.stream.aclose()
        # It says that it has more than there is: a server that lost its power has forgotten it.
        page = await follow(listener, f"{id_}:7")
        await page.until(lambda: page.text(id_) == "a|b|c")
        assert any(e.get("answers", {}).get(id_, {}).get("reset") for e in page.events)
        await page.reply.stream.aclose()


async def test_what_is_of_an_earlier_run_is_not_gone_on_from(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        id_ = await begin(listener, "a")
        (generation,) = server.registry
        say(server, generation, "a\n\n", "b\n\n", "c\n\n", "d")
        generation.splices.append((2, 5))  # from the third piece on it was made anew
        for have, epoch, first in ((2, 0, 2), (3, 0, 0), (3, 5, 3), (1, 0, 1)):
            blocks = await _blocks_until(listener, f"{id_}:{have}:{epoch}", "d")
            assert [block["n"] for block in blocks] == [*range(first, 3)], (have, epoch)


async def _blocks_until(listener: MemoryListener, answer: str, end: str) -> list[dict[str, Any]]:
    """What a reader gets that asks so, until it is shown so much."""
    id_ = answer.partition(":")[0]
    page = await follow(listener, answer)
    await page.until(lambda: page.text(id_).endswith(end))
    await page.reply.stream.aclose()
    return page.blocks[id_]


async def test_one_that_is_over_is_sent_to_its_end_from_the_store(tmp_path: Path) -> None:
    text = "".join(f"word {n} *x*\n\n" for n in range(20_000))
    log = TokenLog(
        [text[at : at + 50] for at in range(0, len(text), 50)], [1] * (len(text) // 50 + 1)
    )
    id_ = put(tmp_path, 1, log=log)
    thought = put(
        tmp_path,
        2,
        log=TokenLog(["so", "yes"], [1, 2]),
        switches=[Switch(0, "reasoning"), Switch(1, "text")],
    )
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        page = await follow(listener, id_, f"{thought}:1", "nobody")
        await page.until(lambda: len(page.over) == 3)
        assert [block["n"] for block in page.blocks[id_]] == [*range(20_000)]
        assert page.blocks[id_][-1]["html"] == "<p>word 19999 <em>x</em></p>\n"
        assert page.blocks[thought] == [{"n": 1, "channel": "text", "html": "<p>yes</p>\n"}]
        assert page.over[id_]["state"] == "done"
        assert page.over["nobody"]["code"] == "generation_not_found"
        await page.reply.stream.aclose()


async def test_a_log_that_was_dropped_from_memory_is_read_again(tmp_path: Path) -> None:
    id_ = put(tmp_path, 1, log=TokenLog(["a\n\n", "b"], [1, 2]))
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        await (await send(listener, "GET", f"/v1/generations/{id_}")).json()
        generation = await listener.server.finder.find(id_, None)
        generation.shelve()
        page = await follow(listener, id_)
        await page.until(lambda: page.over)
        assert page.text(id_) == "a|b"
        assert not generation.readers
        await page.reply.stream.aclose()


async def test_who_only_looks_keeps_nothing_alive(autojump_clock: object) -> None:
    """What an SDK has begun ends when the SDK leaves, though a page shows it."""
    upstream = paused()
    async with serving(upstream) as (server, listener):
        connection, stream = await ask(listener, "POST", CHAT, chat("a b"))
        await wait_all_tasks_blocked()
        (generation,) = server.registry
        page = await follow(listener, generation.id)
        upstream.release(1)
        answer = await reply(connection, stream)
        await page.until(lambda: page.text(generation.id) == "user:")
        assert (page.runs[generation.id]["api"], answer.status) == ("chat", 200)
        await stream.aclose()
        await page.until(lambda: page.over)
        assert page.over[generation.id]["state"] == "cancelled"
        assert page.over[generation.id]["error"]["code"] == "cancelled"
        # And one in the background goes on when the page leaves.
        id_ = await begin(listener, "a b")
        other = await follow(listener, id_)
        await other.until(lambda: id_ in other.blocks)
        await other.reply.stream.aclose()
        await trio.sleep(100)
        assert [one.id for one in server.registry] == [id_]
        upstream.release(9)
        await page.until(lambda: id_ in page.ended)
        assert page.ended[id_]["state"] == "done"
        await page.reply.stream.aclose()
        await all_quiet(server, upstream, listener)


PEOPLE = Users.parse("A name=ann\nB name=bob\nR name=root role=admin\n")


async def test_what_belongs_to_others_is_not_told(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, users=PEOPLE) as (_, listener):
        ann, bob, root = ({"Authorization": f"Bearer {token}"} for token in "ABR")
        answer = await send(
            listener, "POST", RESPONSES, {"model": "fake", "input": "a", "background": True}, ann
        )
        id_ = (await answer.json())["id"][5:]
        hers, his = (
            await follow(listener, id_, headers=ann),
            await follow(listener, id_, headers=bob),
        )
        admins = await follow(listener, id_, headers=root)
        all_ = await follow(listener, headers=root, all=1)
        await hers.until(lambda: id_ in hers.blocks)
        await his.until(lambda: id_ in his.over)
        assert his.over[id_]["code"] == "generation_not_found"
        assert his.runs == {}
        await admins.until(lambda: id_ in admins.runs)  # since it is followed
        await all_.until(lambda: id_ in all_.runs)
        assert all_.runs[id_]["owner"] == "ann"
        assert "owner" not in hers.runs[id_]
        upstream.release(9)
        await hers.until(lambda: id_ in hers.ended)
        await all_.until(lambda: id_ in all_.ended)
        await admins.until(lambda: id_ in admins.over)
        assert all_.ended[id_]["owner"] == "ann"
        with trio.move_on_after(60):
            await his.next()
        assert len(his.events) == 1
        refused = await send(listener, "GET", "/v1/events?all=1", None, bob)
        assert refused.status == 403
        for page in (hers, his, admins, all_):
            await page.reply.stream.aclose()


async def test_what_is_deleted_and_which_conversations_change(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        page = await follow(listener)
        await page.next()
        id_ = await begin(listener, "a")
        await page.until(lambda: id_ in page.ended)
        assert (await send(listener, "DELETE", f"/v1/generations/{id_}")).status == 200
        await page.until(lambda: page.events[-1].get("deleted"))
        assert page.events[-1]["deleted"] == [id_]
        listener.server.changes.note("", "conv_1", "created")
        listener.server.changes.note("", "conv_1", "changed")
        listener.server.changes.note("", "conv_2", "deleted")
        await page.until(lambda: page.events[-1].get("conversations"))
        assert page.events[-1]["conversations"] == {"conv_1": "created", "conv_2": "deleted"}
        await page.reply.stream.aclose()


async def test_the_report_of_the_server_comes_each_second(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        page = await follow(listener, status=1)
        begun = trio.current_time()
        for _ in range(4):
            await page.next()
        assert 3 <= trio.current_time() - begun < 4.5
        assert all(event["status"]["object"] == "status" for event in page.events)
        assert ["history" in event["status"] for event in page.events] == [
            True,
            False,
            False,
            False,
        ]
        await page.reply.stream.aclose()


async def test_a_comment_now_and_then_when_nothing_happens(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        page = await follow(listener)
        await page.next()
        with trio.move_on_after(61):
            await page.next()
        assert 11 <= len(page.reply.comments) <= 13
        assert len(page.events) == 1
        await page.reply.stream.aclose()


async def test_a_server_that_stops_waits_for_what_runs_and_not_for_who_looks(
    autojump_clock: object,
) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        id_ = await begin(listener, "a")
        page = await follow(listener, id_)
        await page.until(lambda: id_ in page.blocks)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 500.0)
            await trio.sleep(100)
            upstream.release(9)
            await page.until(lambda: "error" in page.events[-1])
            assert 100 <= trio.current_time() - begun < 105
            assert page.events[-1]["error"]["code"] == "shutting_down"
            assert page.text(id_) == "user: a"
            assert page.over[id_]["state"] == "done"
            assert await page.next() is None


async def test_who_is_not_let_in_any_more_is_told_nothing_more(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, users=Users.parse("A name=ann\n")) as (server, listener):
        page = await follow(listener, headers={"Authorization": "Bearer A"})
        await page.next()
        server.users.reload("B name=bob\n")
        server.runs.deleted("of-hers", "ann")
        server.check_users()
        event = await page.next()
        assert event is not None
        assert [*event] == ["error"]
        assert event["error"]["code"] == "invalid_api_key"
        assert await page.next() is None


async def test_a_reader_that_takes_nothing_costs_little_and_then_has_all(
    autojump_clock: object,
) -> None:
    upstream = paused()
    async with serving(upstream, write_timeout=math.inf) as (server, listener):
        id_ = await begin(listener, "a")
        (generation,) = server.registry
        page = await follow(listener, id_, unread=True)
        await page.until(lambda: id_ in page.blocks)
        for number in range(400):
            say(server, generation, f"- {number} *{'x' * 2000}*\n")
            await trio.sleep(0.2)
        assert server.unsent.waiting < HIGH_WATER + 3 * 128_000
        for _ in range(300):  # others end meanwhile
            server.runs.ended(generation)
        upstream.release(9)
        await page.until(lambda: id_ in page.over)
        text = "".join(block["html"] for block in page.blocks[id_])
        assert text.count("<em>") + text.count("*x") >= 390
        assert len(page.events) < 400
        # Too many ends were not told: all that runs is, once more.
        assert sum(event.get("snapshot", False) for event in page.events) == 2
        await page.reply.stream.aclose()


async def test_of_many_that_run_the_newest_are_told(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream, max_queue=1000) as (server, listener):
        ids = [await begin(listener, str(number)) for number in range(MOST_RUNS + 20)]
        page = await follow(listener, ids[0])
        await page.until(lambda: ids[0] in page.blocks)
        assert page.events[0]["more"] == 20
        assert set(page.runs) == {*ids[20:], ids[0]}
        for generation in server.registry:
            generation.cancel()
        await page.until(lambda: len(page.ended) == len(ids))
        assert page.events[-1].get("more", 0) == 0
        await page.reply.stream.aclose()


@pytest.mark.parametrize(
    ("seconds", "share", "least"),
    [(0.003, stream_module._SHARE, 10), (0.02, 0.06, 8), (0.2, stream_module._LARGEST_SHARE, 2)],
)
async def test_rendering_has_a_small_share_of_each_second(
    autojump_clock: object,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    share: float,
    least: int,
) -> None:
    """What is dear is done seldom; each answer gets its turn, in time, and nothing is lost."""
    now = 0.0

    def slow() -> float:
        nonlocal now
        now += seconds  # between two looks at the clock: each rendering takes so long
        return now

    monkeypatch.setattr("llcuda_net.server.http.events.following.thread_time", slow)
    upstream = paused(slots=4)
    async with serving(upstream) as (server, listener):
        ids = [await begin(listener, str(number)) for number in range(3)]
        page = await follow(listener, *ids)
        await page.until(lambda: len(page.blocks) == 3)
        seen, begun = len(page.events), trio.current_time()
        for number in range(100):
            for generation in server.registry:
                say(server, generation, f"*{number}* ")
            await trio.sleep(0.1)
        await page.until(lambda: all(page.text(one).endswith("99") for one in ids))
        rendered = [
            id_
            for event in page.events[seen:]
            for id_, answer in event.get("answers", {}).items()
            if "html" in answer.get("open", {})
        ]
        due = share * (trio.current_time() - begun)
        # What was saved before may be spent, too, and the last of it on one that takes longer.
        most = due + stream_module._MOST_SAVED + seconds
        assert due / 2 < seconds * len(rendered) <= most + 1e-9
        assert min(rendered.count(id_) for id_ in ids) >= least
        await page.reply.stream.aclose()
