"""Batches from their check to their files: order, room, failures, restarts, and their end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import InvalidRequest, Overloaded, StorageUnavailable, UpstreamError
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.files import CHUNK
from llcuda_net.storage.objects.interface import Database
from tests.support.server.batch_rig import (
    BatchRig,
    Generation,
    MemoryObjects,
    Upstream,
    batch_rig,
    line,
)

TEXTS = [f"text {n}" for n in range(20)]


def said(rig: BatchRig, id_: str | None) -> list[str]:
    return [one["response"]["body"]["said"] for one in rig.contents(id_)]


async def test_answers_come_in_the_order_of_the_input(autojump_clock: trio.abc.Clock) -> None:
    async with batch_rig() as rig:
        batch = await rig.over(rig.make(TEXTS))
        assert (batch.state, batch.total, batch.completed, batch.failed) == ("completed", 20, 20, 0)
        assert (batch.input_tokens, batch.output_tokens) == (60, 40)
        assert batch.error is None
        found = rig.contents(batch.output)
        assert [one["custom_id"] for one in found] == TEXTS
        assert said(rig, batch.output) == TEXTS
        assert found[4].keys() == {"id", "custom_id", "response", "error"}
        assert found[4]["id"] == "batch_req_0_5"
        assert found[4]["error"] is None
        assert found[4]["response"]["status_code"] == 200
        assert found[4]["response"]["request_id"].startswith("req_")
        assert len({one["response"]["request_id"] for one in found}) == 20
        assert sorted(rig.upstream.texts) == sorted(TEXTS)


async def test_how_a_line_is_asked(autojump_clock: trio.abc.Clock) -> None:
    async with batch_rig(timeout=100) as rig:
        await rig.over(rig.make(["one", "two"]))
        first, second = rig.upstream.headers
        assert first == {
            "content-type": "application/json",
            "idempotency-key": "batch_0:0",
            "x-llcuda-priority": "low",
            "x-llcuda-deadline": "50.000",
            "x-llcuda-on-disconnect": "continue",
        }
        assert second["idempotency-key"] == "batch_0:1"
    async with batch_rig(durability="memory") as rig:
        await rig.over(rig.make(["one"]))
        assert rig.upstream.headers[0]["x-llcuda-level"] == "disk"


async def test_no_more_lines_are_asked_than_keep_the_slots_busy(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=3, max_queue=8) as rig:
        batch = rig.make(TEXTS)
        await wait_all_tasks_blocked(0.05)
        assert upstream.active == 3 + 2
        assert rig.host.incoming.waiting == 0  # small ones are not counted
        rig.backend.slots = 1
        upstream.release(10)
        await wait_all_tasks_blocked(0.05)
        assert upstream.active == 1 + 1
        upstream.release(10)
        assert (await rig.over(batch)).completed == 20


async def test_batches_take_turns(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=1, max_queue=0) as rig:
        first = rig.make([f"a{n}" for n in range(9)])
        await wait_all_tasks_blocked(0.05)
        second = rig.make([f"b{n}" for n in range(3)])
        await wait_all_tasks_blocked(0.05)
        upstream.release(12)
        await rig.over(first)
        await rig.over(second)
        order = "".join(text[0] for text in upstream.texts)
        assert order.startswith("aabababa")


async def test_users_take_turns_however_many_batches_they_have(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=1, max_queue=0) as rig:
        many = [rig.make([f"a{i}{n}" for n in range(4)], owner="ann") for i in range(5)]
        await wait_all_tasks_blocked(0.05)
        one = rig.make([f"b{n}" for n in range(4)], owner="bob")
        await wait_all_tasks_blocked(0.05)
        upstream.release(24)
        for batch in (*many, one):
            assert (await rig.over(batch)).completed == 4
        order = "".join(text[0] for text in upstream.texts)
        assert order.startswith("aabababab")


async def test_batches_of_the_same_lines_at_once(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=40) as rig:
        some = [rig.make(TEXTS[:2]) for _ in range(3)]
        await wait_all_tasks_blocked(0.05)
        assert upstream.active == 6
        upstream.release(6)
        for batch in some:
            found = await rig.over(batch)
            assert (found.state, found.completed) == ("completed", 2)
        assert len({key for key, _ in upstream.asked}) == 6


async def test_a_line_that_is_refused_is_in_the_error_file(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.answers = {
        "text 3": [InvalidRequest("no such thing")],
        "text 5": [HttpError(404, "no model", param="model", code="model_not_found")],
        "text 7": [RuntimeError("a bug")] * 4,
    }
    async with batch_rig(upstream=upstream) as rig:
        batch = await rig.over(rig.make(TEXTS))
        assert (batch.state, batch.completed, batch.failed) == ("completed", 17, 3)
        found = rig.contents(batch.error)
        assert [one["custom_id"] for one in found] == ["text 3", "text 5", "text 7"]
        assert [one["response"]["status_code"] for one in found] == [400, 404, 500]
        assert found[1]["response"]["body"]["error"] == {
            "message": "no model",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
        assert all(one["error"] is None for one in found)
        assert upstream.texts.count("text 3") == 1
        assert said(rig, batch.output) == [t for t in TEXTS if t[-2:] not in (" 3", " 5", " 7")]


async def test_where_there_is_no_room_a_line_waits_and_is_asked_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Upstream()
    busy = Overloaded("the queue is full", retry=True, retry_after=2.0)
    upstream.answers = {"text 3": [busy] * 12}
    async with batch_rig(upstream=upstream) as rig:
        begun = trio.current_time()
        batch = await rig.over(rig.make(TEXTS))
        assert (batch.state, batch.completed, batch.failed) == ("completed", 20, 0)
        assert upstream.texts.count("text 3") == 13
        assert len(upstream.texts) == 32
        waited = trio.current_time() - begun
        assert 12 * 2 <= waited < 12 * 31  # it takes more and more time between attempts
        assert {key for key, body in upstream.asked if body["text"] == "text 3"} == {"batch_0:3"}


async def test_an_upstream_that_fails_at_a_line_is_not_asked_for_ever(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Upstream()
    failure = of_request_error(UpstreamError("it broke", retry=True))
    upstream.answers = {"text 1": [failure] * 3, "text 2": [failure] * 9}
    async with batch_rig(upstream=upstream) as rig:
        batch = await rig.over(rig.make(TEXTS))
        assert (batch.completed, batch.failed) == (19, 1)
        (found,) = rig.contents(batch.error)
        assert (found["custom_id"], found["response"]["status_code"]) == ("text 2", 502)
        assert (upstream.texts.count("text 1"), upstream.texts.count("text 2")) == (4, 4)


@pytest.mark.parametrize("sent", [False, True])
async def test_while_no_upstream_is_there_lines_wait_for_one(
    sent: bool, autojump_clock: trio.abc.Clock
) -> None:
    """One that upstreams had when they went away may be why they did."""
    upstream = Upstream()
    away = HttpError(
        503,
        "no upstream",
        headers={"retry-after-ms": "1000", "x-llcuda-generation": "g1"},
    )
    upstream.answers = {"text 1": [away] * 50}
    async with batch_rig(upstream=upstream) as rig:
        rig.generations["g1"] = Generation(sent=1.0 if sent else None)
        batch = await rig.over(rig.make(TEXTS))
        assert (batch.completed, batch.failed) == ((19, 1) if sent else (20, 0))
        assert upstream.texts.count("text 1") == (4 if sent else 51)


async def test_a_restart_goes_on_and_asks_nothing_that_is_over(
    autojump_clock: trio.abc.Clock,
) -> None:
    objects, upstream = MemoryObjects(), Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(objects, upstream) as rig:
        batch = rig.make(TEXTS)
        upstream.release(7)
        await wait_all_tasks_blocked(0.05)
        assert rig.get(batch).completed == 7
        cut_off = set(upstream.texts[7:])
        assert upstream.active
    assert not upstream.active
    upstream.gate = None
    async with batch_rig(objects, upstream) as rig:
        batch = await rig.over(batch)
        assert (batch.state, batch.completed) == ("completed", 20)
        assert said(rig, batch.output) == TEXTS
    twice = {text for text in TEXTS if upstream.texts.count(text) > 1}
    assert twice == cut_off  # with the same key: these join what was begun
    keys = {(key, body["text"]) for key, body in upstream.asked}
    assert keys == {(f"batch_0:{n}", text) for n, text in enumerate(TEXTS)}


async def test_a_restart_while_it_is_checked_or_written(autojump_clock: trio.abc.Clock) -> None:
    objects = MemoryObjects()
    async with batch_rig(objects) as rig:
        batch = rig.make(TEXTS)
    for _ in range(60):
        async with batch_rig(objects) as rig:
            for _ in range(40):  # turns of the event loop, then it is killed
                await trio.lowlevel.checkpoint()
            if not rig.get(batch).open:
                break
    async with batch_rig(objects) as rig:
        batch = await rig.over(batch)
        assert said(rig, batch.output) == TEXTS
        ready = "SELECT count(*) FROM files WHERE state = 'ready' AND purpose = 'batch_output'"
        assert objects.db.value(ready) == 1


async def test_wrong_lines_fail_it_and_none_is_asked(autojump_clock: trio.abc.Clock) -> None:
    async with batch_rig() as rig:
        data = line("a") + b"nonsense\n" + line("a") + line("b", method="GET")
        batch = await rig.over(rig.make([], data=data))
        assert (batch.state, batch.total, batch.output, batch.error) == ("failed", 0, None, None)
        codes = [(error["line"], error["code"]) for error in batch.details.errors]
        assert codes == [
            (2, "invalid_json_line"),
            (3, "duplicate_custom_id"),
            (4, "invalid_request"),
        ]
        assert not rig.upstream.asked


async def test_an_input_of_many_chunks(autojump_clock: trio.abc.Clock) -> None:
    texts = [f"{n} " + "x" * (CHUNK // 3 + n) for n in range(20)]
    data = b"".join(line(text, custom_id=f"{n}") for n, text in enumerate(texts))
    async with batch_rig() as rig:
        batch = await rig.over(rig.make([], data=data))
        assert (batch.state, batch.completed) == ("completed", 20), batch.details.errors
        assert said(rig, batch.output) == texts


async def test_one_that_is_cancelled(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=2, max_queue=0) as rig:
        batch = rig.make(TEXTS)
        upstream.release(5)
        await wait_all_tasks_blocked(0.05)
        running = rig.generations["batch_0:5"] = Generation()
        over = rig.generations["batch_0:6"] = Generation(ended=True)
        choice = rig.generations["batch_0:5#1"] = Generation()
        rig.cancel(batch)
        batch = await rig.over(batch)
        assert (batch.state, batch.completed, batch.failed) == ("cancelled", 5, 15)
        assert said(rig, batch.output) == TEXTS[:5]
        found = rig.contents(batch.error)
        assert [one["custom_id"] for one in found] == TEXTS[5:]
        assert {one["error"]["code"] for one in found} == {"batch_cancelled"}
        assert {one["response"] for one in found} == {None}
        assert (running.cancelled, choice.cancelled, over.cancelled) == (True, True, False)
        assert len(upstream.asked) == 7
        assert not upstream.active


async def test_one_that_is_cancelled_when_the_server_is_not_there(
    autojump_clock: trio.abc.Clock,
) -> None:
    objects, upstream = MemoryObjects(), Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(objects, upstream, slots=2, max_queue=0) as rig:
        batch = rig.make(TEXTS)
        await wait_all_tasks_blocked(0.05)
        rig.cancel(batch)
    async with batch_rig(objects, upstream) as rig:
        running = rig.generations["batch_0:1"] = Generation()
        batch = await rig.over(batch)
        assert (batch.state, batch.failed, running.cancelled) == ("cancelled", 20, True)


async def test_all_that_the_last_server_had_begun_is_cancelled(
    autojump_clock: trio.abc.Clock,
) -> None:
    """However many lines there are, and nothing of another batch."""
    objects, upstream = MemoryObjects(), Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(objects, upstream) as rig:
        batch = rig.make([f"{n}" for n in range(700)])
        await wait_all_tasks_blocked(0.05)
        rig.cancel(batch)
    async with batch_rig(objects, upstream) as rig:
        begun = [rig.generations.setdefault(f"batch_0:{n}", Generation()) for n in range(700)]
        other = rig.generations["batch_01:0"] = Generation()
        batch = await rig.over(batch)
        assert (batch.state, batch.failed) == ("cancelled", 700)
        assert all(one.cancelled for one in begun)
        assert not other.cancelled


async def test_one_that_is_cancelled_before_it_is_checked(autojump_clock: trio.abc.Clock) -> None:
    objects = MemoryObjects()
    rig = BatchRig(objects, Upstream(), 4)
    batch = rig.make(TEXTS)
    rig.cancel(batch)
    async with batch_rig(objects) as rig:
        batch = await rig.over(batch)
        assert (batch.state, batch.output, batch.error) == ("cancelled", None, None)
        assert not rig.upstream.asked


async def test_when_the_window_is_over(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=2, max_queue=0) as rig:
        batch = rig.make(TEXTS, hours=2)
        upstream.release(3)
        await wait_all_tasks_blocked(0.05)
        running = rig.generations["batch_0:3"] = Generation()
        begun = trio.current_time()
        batch = await rig.over(batch)
        assert trio.current_time() - begun == pytest.approx(7200, abs=2)
        assert (batch.state, batch.completed, batch.failed) == ("expired", 3, 17)
        codes = [one["error"]["code"] for one in rig.contents(batch.error)]
        assert codes == ["batch_expired"] * 17
        assert running.cancelled


async def test_a_window_that_was_over_before_the_restart(autojump_clock: trio.abc.Clock) -> None:
    objects = MemoryObjects()
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(objects, upstream) as rig:
        batch = rig.make(TEXTS, hours=1)
        upstream.release(3)
        await wait_all_tasks_blocked(0.05)
    later = BatchRig(objects, upstream, 4)
    later.now += 2 * 3600 * 10**9
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.runner.run)
        batch = await later.over(batch)
        nursery.cancel_scope.cancel()
    assert (batch.state, batch.completed, batch.failed) == ("expired", 3, 17)


async def test_a_server_that_drains_asks_nothing_more(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=2, max_queue=0) as rig:
        batch = rig.make(TEXTS)
        await wait_all_tasks_blocked(0.05)
        rig.host.draining = True
        upstream.release(20)
        await trio.sleep(100)
        # One line had a place coming to it already.
        assert len(upstream.asked) <= 3
        assert rig.get(batch).state == "in_progress"


async def test_a_store_that_refuses_for_a_while(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    async with batch_rig(upstream=upstream) as rig:
        full = StorageUnavailable("no room", retry=True)
        for at in range(0, 60, 7):
            rig.objects.refusals = [full] * (at % 5)
            batch = await rig.over(rig.make(TEXTS))
            assert (batch.state, batch.completed, batch.failed) == ("completed", 20, 0)
            assert said(rig, batch.output) == TEXTS
            assert not rig.objects.refusals
        assert len(upstream.asked) == 9 * 20


async def test_files_that_could_not_be_written_whole_do_not_stay(
    autojump_clock: trio.abc.Clock,
) -> None:
    upstream = Upstream()
    upstream.answers = {"text 3": [HttpError(400, "no")]}
    async with batch_rig(upstream=upstream) as rig:
        refused = 0
        append = files.append

        def full(db: Database, seq: int, first: int, chunks: Sequence[bytes]) -> None:
            nonlocal refused
            refused += 1
            if refused % 2 or refused < 9:
                raise StorageUnavailable("no room", retry=True)
            append(db, seq, first, chunks)

        batch = rig.make(TEXTS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "append", full)
            with trio.move_on_after(100):
                await rig.over(batch)
        assert refused > 9
        batch = await rig.over(batch)
        assert said(rig, batch.output) == TEXTS[:3] + TEXTS[4:]
        count = "SELECT count(*) FROM files WHERE state = ?"
        assert rig.objects.db.value(count, ("ready",)) == 3
        assert rig.objects.db.value(count, ("uploading",)) == 0


async def test_where_its_owner_may_have_no_more_the_rest_is_not_asked(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What was answered is delivered: a file may go a little too far."""
    upstream, objects = Upstream(), MemoryObjects()
    texts = [f"{n} " + "x" * 5000 for n in range(60)]
    data = b"".join(line(text, custom_id=f"{n}") for n, text in enumerate(texts))
    quota = 3 * len(data) // 2
    async with batch_rig(objects, upstream, slots=2, max_user_files=quota) as rig:
        batch = await rig.over(rig.make([], data=data))
        assert (batch.state, batch.ends) == ("failed", "failed")
        (error,) = batch.details.errors
        assert error["code"] == "storage_quota_exceeded"
        assert f"may take {quota:,}: delete some files first" in error["message"]
        assert 25 < batch.completed < 40
        assert batch.completed + batch.failed == 60
        assert len(upstream.asked) == batch.completed
        assert said(rig, batch.output) == texts[: batch.completed]
        rest = rig.contents(batch.error)
        assert [one["custom_id"] for one in rest] == [f"{n}" for n in range(batch.completed, 60)]
        assert {one["error"]["code"] for one in rest} == {"storage_quota_exceeded"}
        assert files.used(objects.db, "") < quota + 200_000
    async with batch_rig(objects, upstream, max_user_files=10 * quota) as rig:
        batch = await rig.over(rig.make([], data=data))
        assert (batch.state, batch.completed) == ("completed", 60)


async def test_one_whose_last_line_takes_too_much_is_complete(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with batch_rig(max_user_files=1) as rig:
        batch = await rig.over(rig.make(["only"]))
        assert (batch.state, batch.completed, batch.details.errors) == ("completed", 1, [])


async def test_what_batches_do_is_counted(autojump_clock: trio.abc.Clock) -> None:
    objects, upstream = MemoryObjects(), Upstream()
    upstream.gate = trio.Semaphore(0)
    upstream.answers = {"text 1": [InvalidRequest("no")]}
    async with batch_rig(objects, upstream, slots=2, max_queue=0) as rig:
        assert not rig.runner.counts().states
        batch, wrong = rig.make(TEXTS), rig.make([], data=b"nonsense")
        upstream.release(5)
        await wait_all_tasks_blocked(0.05)
        counts = rig.runner.counts()
        assert (counts.states, counts.ended) == ({"in_progress": 1}, {"failed": 1})
        assert counts.lines == {"completed": 4, "failed": 1}
        assert (counts.asked, counts.left) == (2, 15)
        assert not rig.get(wrong).open
    async with batch_rig(objects, upstream, slots=2, max_queue=0) as rig:
        await wait_all_tasks_blocked(0.05)
        assert rig.runner.counts().left == 15
        rig.cancel(batch)
        await rig.over(batch)
        await wait_all_tasks_blocked(0.05)
        counts = rig.runner.counts()
        assert (counts.states, counts.ended) == ({}, {"cancelled": 1})
        assert counts.lines == {"completed": 0, "failed": 15}
        assert (counts.asked, counts.left) == (0, 0)


async def test_large_lines_wait_for_memory(autojump_clock: trio.abc.Clock) -> None:
    upstream = Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(upstream=upstream, slots=8) as rig:
        share = rig.host.incoming.share
        texts = [f"{n} " + "x" * (share // 3 + 60_000) for n in range(5)]
        data = b"".join(line(text, custom_id=f"{n}") for n, text in enumerate(texts))
        batch = rig.make([], data=data)
        await wait_all_tasks_blocked(0.05)
        assert upstream.active == 2
        upstream.release(5)
        batch = await rig.over(batch)
        assert (batch.completed, batch.failed) == (5, 0)
        assert rig.host.incoming.waiting == 0


async def test_a_damaged_input_and_a_damaged_outcome(autojump_clock: trio.abc.Clock) -> None:
    objects, upstream = MemoryObjects(), Upstream()
    upstream.gate = trio.Semaphore(0)
    async with batch_rig(objects, upstream) as rig:
        batch = rig.make(TEXTS)
        upstream.release(4)
        await wait_all_tasks_blocked(0.05)
    upstream.gate = None
    objects.db.run("UPDATE outcomes SET data = x'7b7d' WHERE number = 2")
    async with batch_rig(objects, upstream) as rig:
        batch = await rig.over(batch)
        (found,) = rig.contents(batch.error)
        assert (found["custom_id"], found["error"]["code"]) == ("text 2", "damaged")
        assert said(rig, batch.output) == [text for text in TEXTS if text != "text 2"]
