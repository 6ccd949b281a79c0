"""The list of generations: running ones and stored ones in one order, and each user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import ANONYMOUS, User
from llcuda_net.errors import RequestError, StorageError
from llcuda_net.generation import listing
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.listing import Selection
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import LINGER, Registry
from llcuda_net.storage.packing.codec import beginning
from llcuda_net.storage.records import Level, TokenLog
from llcuda_net.storage.results.sqlite import SqliteStore
from llcuda_net.storage.storage import Storage
from llcuda_protocol import (
    Accepted,
    Attach,
    Done,
    Error,
    ErrorCode,
    Event,
    Limits,
    ListGenerations,
    Listing,
    Tokens,
)
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, Peer, ask, paused, ready, serving
from tests.support.storage.records import SECOND, START, result

PEOPLE = "A name=ann\nB name=bob\nR name=root role=admin\n"


async def listed(peer: Peer, **changes: Any) -> list[dict[str, Any]]:
    stream = peer.connection._last_stream + 1
    await peer.send(ListGenerations(stream, **changes))
    found: list[dict[str, Any]] = []
    while not isinstance(event := await answer(peer, stream), Done):
        assert isinstance(event, Listing), event
        assert event.first == len(found)
        found += event.entries
    assert event.reason == "complete"
    return found


async def answer(peer: Peer, stream: int) -> Event:
    while getattr(event := await peer.next(), "stream", 0) != stream:
        pass
    return event


async def asked(peer: Peer, text: str, stream: int, **changes: Any) -> str:
    await peer.send(ask(text, stream, **changes))
    _, found = await peer.until(Accepted, stream)
    id_: str = found.id
    return id_


def put(folder: Path, *numbers: int, **changes: Any) -> None:
    store = SqliteStore(folder, write=True)
    store.put([result(n, **changes) for n in numbers])
    store.close()


async def test_what_runs_waits_and_is_over_newest_first(tmp_path: Path) -> None:
    upstream = FakeUpstream(slots=1)
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        over = await asked(peer, "a  b\nc", 1)
        await peer.until(Done, 1)
        upstream.paused = True
        running = await asked(peer, "d e f", 2)
        upstream.release(2)
        seen: list[str] = []
        while len(seen) < 2:
            seen += (await peer.until(Tokens, 2))[0]
        first = await asked(peer, "g", 3)
        second = await asked(peer, "h " * 1000, 4)
        found = await listed(peer)
        assert [entry["id"] for entry in found] == [second, first, running, over]
        assert [entry["state"] for entry in found] == ["queued", "queued", "running", "done"]
        assert [entry.get("position") for entry in found] == [2, 1, None, None]
        assert [entry["tokens"] for entry in found] == [0, 0, 2, 3]
        assert [entry["text"] for entry in found] == ["", "", "d e", "a b c"]
        assert found[0]["preview"] == ("h " * 1000)[:120]
        assert [entry["preview"] for entry in found[1:]] == ["g", "d e f", "a b c"]
        assert (found[2]["model"], found[3]["model"]) == ("fake", "fake")
        created = [entry["created"] for entry in found]
        assert created == sorted(created, reverse=True)
        assert {entry["owner"] for entry in found} == {""}  # everybody is an admin here
        for state, ids in (
            ("queued", [second, first]),
            ("running", [running]),
            ("done", [over]),
            ("failed", []),
        ):
            assert [entry["id"] for entry in await listed(peer, state=state)] == ids


@pytest.mark.parametrize("state", ["", "over", "DONE"])
async def test_a_state_that_there_is_not(state: str, autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ListGenerations(1, state=state))
        _, error = await peer.until(Error)
        assert error.code == ErrorCode.INVALID_REQUEST
        assert (
            "choose one of queued, running, done, failed, cancelled, interrupted" in error.message
        )


async def test_each_has_a_list_of_their_own_and_an_admin_everybodys(tmp_path: Path) -> None:
    put(tmp_path, 1, owner="ann")
    put(tmp_path, 2, owner="bob")
    put(tmp_path, 3)
    users = Users.parse(PEOPLE + "N\n")
    async with keeping(tmp_path, paused(slots=9), users=users) as (_, listener):
        peers = {token: await ready(listener, token) for token in "ABRN"}
        ids = {token: await asked(peers[token], f"of {token}", 1) for token in "AB"}
        own = {
            "A": (ids["A"], 1),
            "B": (ids["B"], 2),
            "N": (3,),
            "R": (ids["B"], ids["A"], 3, 2, 1),
        }
        for token, wanted in own.items():
            found = await listed(peers[token])
            names = [n if isinstance(n, str) else f"result-{n:06d}" for n in wanted]
            assert [entry["id"] for entry in found] == names
            owners = [entry.get("owner") for entry in found]
            assert owners == (
                ["bob", "ann", "", "bob", "ann"] if token == "R" else [None] * len(found)
            )
        # Nor is it told by way of another's id that this is one.
        for stream, before in enumerate((ids["A"], "result-000001", "result-000009"), 100):
            await peers["B"].send(ListGenerations(stream, before=before))
            _, error = await peers["B"].until(Error, stream)
            assert error.code == ErrorCode.UNKNOWN_GENERATION
            assert error.message.startswith(f"there is no generation {before!r} here")


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_page_by_page_everything_comes_once(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_STEP", 2)
    put(tmp_path, *range(1, 8), owner="ann")
    put(tmp_path, 20, 21, 22, owner="ann", created=START)  # at one moment
    put(tmp_path, 30, owner="bob")
    async with keeping(tmp_path, paused(), users=Users.parse(PEOPLE)) as (_, listener):
        peer = await ready(listener, "A")
        running = [await asked(peer, f"{n}", n) for n in range(1, 5)]
        for generation in listener.server.registry:  # three of them at one moment as well
            generation.created = max(running_of(listener.server.registry).values())
        pages: list[list[str]] = []
        before = None
        while True:
            found = await listed(peer, limit=limit, before=before)
            pages.append([entry["id"] for entry in found])
            if len(found) < limit:
                break
            before = found[-1]["id"]
        together = [name for page in pages for name in page]
        assert sorted(together[:4]) == sorted(running)
        assert together[4:] == [f"result-{n:06d}" for n in (7, 6, 5, 4, 3, 2, 1, 22, 21, 20)]
        assert {len(page) for page in pages[:-1]} <= {limit}


def running_of(registry: Registry) -> dict[str, int]:
    return {generation.id: generation.created for generation in registry}


async def test_a_running_one_is_older_than_a_stored_one(tmp_path: Path) -> None:
    """The order is that of the beginning, wherever each is."""
    storage = Storage(tmp_path)
    registry = Registry()
    put(tmp_path, 2, 4)
    for number in (0, 1, 3, 4, 5):
        generation = Generation("p", None, {}, 1, id=f"g{number}", created=START + number * SECOND)
        generation.accepted = True
        registry.add(generation)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        persistence = Persistence(storage, Level.DISK)

        async def names(**changes: Any) -> list[str]:
            request = ListGenerations(1, **changes)
            return [
                e["id"][-2:]
                for e in await listing.listed(
                    Selection.of(request), ANONYMOUS, registry, persistence
                )
            ]

        assert await names() == ["g5", "g4", "04", "g3", "02", "g1", "g0"]
        assert await names(limit=4) == ["g5", "g4", "04", "g3"]
        assert await names(before="g3") == ["02", "g1", "g0"]
        assert await names(before="g5", limit=2) == ["g4", "04"]
        assert await names(before="g0") == []
        # Of one moment: each comes once, wherever the page ends.
        assert await names(before="g4", limit=2) == ["04", "g3"]
        assert await names(before="result-000004") == ["g3", "02", "g1", "g0"]
        nursery.cancel_scope.cancel()


async def test_what_goes_to_the_store_meanwhile_is_there_once_and_is_over(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    registry = Registry()
    for number in range(1, 5):
        generation = Generation("p", None, {}, 1, id=f"result-{number:06d}", owner="ann")
        generation.created = START + number * SECOND
        generation.accepted = True
        registry.add(generation)
    put(tmp_path, 2, 4, owner="ann")  # committed, and not out of the registry yet
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        found = await listing.listed(
            Selection(limit=3), User("ann"), registry, Persistence(storage, Level.DISK)
        )
        assert [(e["id"][-1], e["state"]) for e in found] == [
            ("4", "done"),
            ("3", "queued"),
            ("2", "done"),
        ]
        for ascending, behind in ((False, "32"), (True, "")):
            selection = Selection(limit=3, after=found[0]["id"], ascending=ascending)
            ann, persistence = User("ann"), Persistence(storage, Level.DISK)
            rest = await listing.listed(selection, ann, registry, persistence)
            assert "".join(e["id"][-1] for e in rest)[:2] == behind
        nursery.cancel_scope.cancel()


async def test_a_page_is_full_behind_one_that_goes_to_the_store_meanwhile(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    registry = Registry()
    put(tmp_path, *range(1, 6))
    for number in (1, 5):
        generation = Generation("p", None, {}, 1, id=f"result-{number:06d}")
        generation.created = START + number * SECOND
        generation.accepted = True
        registry.add(generation)
    async with trio.open_nursery() as nursery:
        await nursery.start(storage.run)
        for after, ascending, behind in (("5", False, "432"), ("1", True, "234")):
            found = await listing.listed(
                Selection(limit=3, after=f"result-00000{after}", ascending=ascending),
                ANONYMOUS,
                registry,
                Persistence(storage, Level.DISK),
            )
            assert "".join(e["id"][-1] for e in found) == behind
        nursery.cancel_scope.cancel()


async def test_what_the_store_has_not_taken_yet_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, FakeUpstream(), users=Users.parse(PEOPLE)) as (storage, listener):

        async def refuse(*_: object) -> None:
            raise StorageError("no room", StorageError.FULL)

        monkeypatch.setattr(storage._writer, "commit", refuse)
        ann = await ready(listener, "A")
        id_ = await asked(ann, "a b", 1)
        await ann.until(Error, 1)  # it is not kept as it should be
        assert [one.id for one in storage.unstored] == [id_]
        (entry,) = await listed(ann)
        # As it was told.
        assert (entry["id"], entry["state"], entry["text"]) == (id_, "failed", "a b")
        assert await listed(await ready(listener, "B")) == []


async def test_where_nothing_is_kept_the_list_is_of_what_can_be_read(
    autojump_clock: object,
) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        id_ = await asked(peer, "a b", 1)
        await peer.until(Done, 1)
        (entry,) = await listed(peer)
        assert (entry["id"], entry["state"], entry["tokens"], entry["text"]) == (
            id_,
            "done",
            2,
            "a b",
        )
        assert await listed(peer, state="running") == []
        await trio.sleep(LINGER + 1)
        assert await listed(peer) == []


async def test_what_may_not_be_read_yet_is_not_shown(autojump_clock: object) -> None:
    registry = Registry()
    told = Generation("p", None, {}, 1)
    told.pieces, told.visible, told.accepted = ["one", " two"], 1, True
    registry.add(told)
    registry.add(Generation("never accepted", None, {}, 1))
    nothing = Persistence(None, Level.MEMORY)
    (entry,) = await listing.listed(Selection(limit=50), ANONYMOUS, registry, nothing)
    assert (entry["id"], entry["text"]) == (told.id, "one")


async def test_a_long_list_comes_in_frames_that_the_client_takes(tmp_path: Path) -> None:
    globe = "\N{EARTH GLOBE EUROPE-AFRICA}"
    log = TokenLog([globe * 300], [1])
    put(tmp_path, *range(1, 131), log=log, request={"prompt": globe * 300}, owner="ann")
    put(tmp_path, 131, owner="ann", model={"name": "m" * 5000})
    async with keeping(tmp_path, FakeUpstream(), users=Users.parse(PEOPLE)) as (_, listener):
        peer = listener.connect(Limits(max_frame=16_384))
        await peer.greet("R")
        await peer.send(ListGenerations(1, limit=1000))
        frames = 0
        found: list[dict[str, Any]] = []
        while isinstance(event := await peer.next(), Listing):
            assert event.first == len(found)
            found += event.entries
            frames += 1
        assert [entry["id"] for entry in found] == [f"result-{n:06d}" for n in range(131, 0, -1)]
        assert 12 <= frames <= 30


async def test_a_damaged_result_is_listed_as_damaged(tmp_path: Path) -> None:
    import apsw

    put(tmp_path, 1, 2)
    db = apsw.Connection(str(tmp_path / "results.db"))
    db.execute("UPDATE results SET preview = 'x', owner = 'bob' WHERE id = 'result-000001'")
    db.execute("UPDATE results SET log = x'0142' WHERE id = 'result-000002'")  # not in the list
    db.close()
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        second, first = await listed(await ready(listener))
        assert (first["id"], first["state"], first["text"]) == ("result-000001", "damaged", "")
        assert (first["preview"], first.get("owner", "")) == ("", "")
        assert second["state"] == "done"
        assert second["text"] == beginning(result(2).log.pieces)


async def test_a_damaged_result_is_not_read(tmp_path: Path) -> None:
    """Reading one by its id, or joining it by its key, is the error `damaged`."""
    import apsw

    put(tmp_path, 1, 2, key="key")
    db = apsw.Connection(str(tmp_path / "results.db"))
    db.execute("UPDATE results SET log = x'0092919161' WHERE id = 'result-000002'")
    db.close()
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        for stream, frame in ((1, Attach(1, "result-000002", 99)), (2, ask("What?", 2, key="key"))):
            await peer.send(frame)
            with trio.fail_after(60):
                while isinstance(error := await answer(peer, stream), Accepted):
                    pass
            assert isinstance(error, Error)
            assert (error.code, error.retry) == (ErrorCode.DAMAGED, False)
            assert "llcuda results verify" in error.message
        await peer.send(Attach(3, "result-000001", 99))
        with trio.fail_after(60):
            assert await peer.until(Done, 3)


async def test_an_unknown_id_is_refused_before_the_store_is_asked_for_more() -> None:
    with pytest.raises(RequestError) as caught:
        await listing.listed(
            Selection(limit=1, after="x"), ANONYMOUS, Registry(), Persistence(None, Level.MEMORY)
        )
    assert caught.value.code == ErrorCode.UNKNOWN_GENERATION
