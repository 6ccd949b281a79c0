"""What a kill left outside of its conversation comes in when the next server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from llcuda_net.errors import InvalidRequest
from llcuda_net.storage.objects import conversations, entries
from llcuda_net.storage.objects.interface import Database
from tests.support.server.conversations import PATH, RESPONSES, begin, call, respond, running, said
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused


async def nodes(listener: MemoryListener, id_: str) -> list[tuple[str, str | None]]:
    found = await call(listener, "GET", f"{PATH}/{id_}/responses?order=asc")
    return [(one["id"], one["previous"]) for one in found["data"]]


@pytest.mark.parametrize("place", ["end", "beside", "behind", "first"])
async def test_it_stands_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    upstream = paused()
    upstream.release(99)
    async with running(tmp_path, upstream) as listener:
        id_ = await begin(listener, items=[] if place == "first" else [said("user", "x")])
        made = []
        if place == "first":
            made.append((await call(listener, "POST", RESPONSES, {"input": "a"}))["id"])
        else:
            made += [(await respond(listener, id_, text))["id"] for text in "ab"]
        before = await nodes(listener, id_)
        more = {
            "end": {},
            "beside": {"instead_of": made[0]},
            "behind": {"previous_response_id": made[0]},
            "first": {"previous_response_id": made[0]},
        }[place]
        upstream._gate = trio.Semaphore(0)
        with monkeypatch.context() as patch:  # as if it was killed before the response was added
            patch.setattr(entries, "add_generation", lambda *_, **__: 0)
            body = {"input": "c", "conversation": id_, "background": True, **more}
            last = (await call(listener, "POST", RESPONSES, body))["id"]
        assert await nodes(listener, id_) == before
    behind = {"end": made[-1], "beside": before[0][0] if before else None}.get(place, made[0])
    first = [(made[0], None)] if place == "first" else []
    for _ in range(2):
        async with running(tmp_path, FakeUpstream()) as listener:
            assert await nodes(listener, id_) == [*first, *before, (last, behind)]


async def test_what_cannot_be_put_there_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = paused()
    async with running(tmp_path, upstream) as listener:
        ids = [await begin(listener) for _ in range(2)]
        body = {"input": "c", "background": True}
        made = [
            (await call(listener, "POST", RESPONSES, {**body, "conversation": id_}))["id"]
            for id_ in ids
        ]

        def lose(db: Database) -> None:
            one, other = (conversations.get(db, id_, None) for id_ in ids)
            assert one is not None
            assert other is not None
            db.run("DELETE FROM entries WHERE conversation = ?", (one.seq,))
            db.run("UPDATE conversations SET head = 0, size = 0 WHERE seq = ?", (one.seq,))
            conversations.delete(db, other)

        await listener.server.objects.write(lose)

    def full(*_: object, **__: object) -> int:
        raise InvalidRequest("full")

    with monkeypatch.context() as patch:
        patch.setattr(entries, "add_generation", full)
        async with running(tmp_path, FakeUpstream()) as listener:
            for one in made:
                ended = {"status": ""}
                while ended["status"] != "completed":
                    ended = await call(listener, "GET", f"{RESPONSES}/{one}")
            assert await nodes(listener, ids[0]) == []
