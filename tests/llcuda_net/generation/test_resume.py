"""A server that is killed and started again goes on with what it ran, token by token."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import RequestError, UpstreamError, UpstreamUnavailable
from llcuda_net.generation import runner
from llcuda_net.storage.records import Level
from llcuda_net.upstream.interface import CompletionEvent, OnEvents, Properties
from llcuda_protocol import Accepted, Attach, Cancel, Done, Error, ErrorCode, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    Peer,
    ask,
    ready,
)


class Speller(FakeUpstream):
    """A model of bytes that continues its prompt with what comes behind it in TEXT."""

    TEXT = "tell: one two three"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reachable = True
        self.refusal: RequestError | None = None
        self.asked = 0

    async def ask(self) -> Properties:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if not self.reachable:
            raise UpstreamUnavailable("not there", retry=True)
        return await super().ask()

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        self.calls.append(params)
        self.prompts.append(prompt)
        self.active += 1
        try:
            on_sent()
            ids = await self.tokenize(prompt, special=True) if isinstance(prompt, str) else prompt
            rest = self.TEXT.removeprefix(bytes(ids[1:]).decode())
            count = 0
            for letter in rest[: params["n_predict"]]:
                if self.paused:
                    await self._gate.acquire()
                count += 1
                on_events(
                    [CompletionEvent(content=letter, tokens=[ord(letter)], tokens_predicted=count)]
                )
                self.poller.end_batch()
            if self.paused:
                await self._gate.acquire()
            how = "eos" if count == len(rest) else "limit"
            on_events(
                [
                    CompletionEvent(
                        stop=True,
                        stop_type=how,
                        tokens_predicted=count,
                        tokens_evaluated=len(ids),
                        model="fake",
                    )
                ]
            )
            if self.paused:
                await self._gate.acquire()
        finally:
            self.active -= 1


ANSWER = Speller.TEXT.removeprefix("tell:")


def speller() -> Speller:
    upstream = Speller(slots=2)
    upstream.paused = True
    return upstream


async def begin(
    listener: MemoryListener, upstream: Speller, count: int, **options: Any
) -> tuple[Peer, Accepted, list[str]]:
    """A request, of whose answer `count` pieces have come."""
    peer = await ready(listener)
    await peer.send(ask("tell:", **options))
    accepted = await peer.next()
    assert isinstance(accepted, Accepted)
    upstream.release(count)
    seen: list[str] = []
    while len(seen) < count and len(seen) < len(ANSWER):
        event = await peer.next()
        assert isinstance(event, Tokens)
        seen += event.pieces
    await wait_all_tasks_blocked()
    return peer, accepted, seen


async def go_on(
    listener: MemoryListener, upstream: Speller, begun: Accepted, seen: list[str]
) -> tuple[str, Any]:
    """Resume reading; the whole text, and the last frame."""
    peer = await ready(listener)
    await peer.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
    upstream.release(100)
    text = "".join(seen)
    while True:
        event = await peer.next()
        if isinstance(event, Tokens):
            text += "".join(event.pieces)
        elif isinstance(event, Done | Error):
            return text, event


@pytest.mark.parametrize("level", [Level.PROCESS, Level.DISK, Level.STRICT])
@pytest.mark.parametrize("count", [0, 1, 5, len(ANSWER) - 1, len(ANSWER)])
async def test_a_stream_goes_on_where_it_was_cut(tmp_path: Path, count: int, level: Level) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first, level) as (_, listener):
        _, begun, seen = await begin(listener, first, count)
    async with keeping(tmp_path, second, level) as (_, listener):
        text, done = await go_on(listener, second, begun, seen)
    assert text == ANSWER
    assert (done.reason, done.id) == ("stop", begun.id)
    assert done.usage == {"completion_tokens": len(ANSWER), "prompt_tokens": 6}
    assert done.splices == ([count] if count else [])
    (result,) = stored(tmp_path)
    assert (result.state, result.text, result.id) == ("done", ANSWER, begun.id)
    assert [splice.position for splice in result.continuations] == done.splices
    assert all(splice.upstream == result.upstream for splice in result.continuations)
    if count:
        assert second.prompts == [[256, *b"tell:", *ANSWER[:count].encode()]]


async def test_many_restarts_and_no_piece_twice(tmp_path: Path) -> None:
    begun: Accepted | None = None
    seen: list[str] = []
    for _ in range(4):
        upstream = speller()
        async with keeping(tmp_path, upstream) as (_, listener):
            if begun is None:
                _, begun, seen = await begin(listener, upstream, 3)
                continue
            peer = await ready(listener)
            await peer.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
            accepted = await peer.next()
            assert isinstance(accepted, Accepted)
            assert accepted.epoch > begun.epoch
            begun = accepted
            upstream.release(2)
            wanted = len(seen) + 2
            while len(seen) < wanted:
                event = await peer.next()
                if isinstance(event, Tokens):
                    assert event.first == len(seen)
                    seen += event.pieces
    assert begun is not None
    upstream = speller()
    async with keeping(tmp_path, upstream) as (_, listener):
        text, done = await go_on(listener, upstream, begun, seen)
    assert (text, done.splices) == (ANSWER, [3, 5, 7, 9])


async def test_an_epoch_is_written_before_a_client_is_told_of_it(tmp_path: Path) -> None:
    """Else a client that was told is taken for one that has what was lost."""
    data, killed = tmp_path / "data", tmp_path / "killed"
    upstreams = [speller() for _ in range(4)]
    async with keeping(data, upstreams[0]) as (_, listener):
        _, told, seen = await begin(listener, upstreams[0], 4)
    for upstream in upstreams[1:3]:
        async with keeping(data, upstream) as (_, listener):
            peer = await ready(listener)
            await peer.send(Attach(1, told.id, CREDIT, first=len(seen), epoch=told.epoch))
            accepted = await peer.next()
            assert isinstance(accepted, Accepted)
            told = accepted
            if upstream is upstreams[1]:
                upstream.release(2)
                seen += (await peer.until(Tokens))[0]
                seen += (await peer.until(Tokens))[0]
            else:
                # This is what a kill leaves now; a server that ends well would write more.
                shutil.copytree(data, killed)
    assert len(seen) == 6
    async with keeping(killed, upstreams[3]) as (_, listener):
        text, done = await go_on(listener, upstreams[3], told, seen)
    assert (text, done.reason, done.splices) == (ANSWER, "stop", [4, 6, 6])


async def test_the_token_limit_counts_across_the_cut(tmp_path: Path) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4, params={"n_predict": 6})
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, second, begun, seen)
    assert (text, done.reason, done.usage["completion_tokens"]) == (ANSWER[:6], "length", 6)
    assert second.calls[0]["n_predict"] == 2


@pytest.mark.parametrize("limit", [6, 100])
async def test_what_had_come_to_its_end_is_not_asked_for_again(tmp_path: Path, limit: int) -> None:
    first, second = speller(), speller()
    whole = min(limit, len(ANSWER))
    async with keeping(tmp_path, first) as (storage, listener):
        _, begun, seen = await begin(listener, first, whole, params={"n_predict": limit})
        if limit > whole:
            first.release(1)  # the end is told, and the server ends before it can store that
            await wait_all_tasks_blocked()
            await storage.written()
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, second, begun, seen)
    assert text == ANSWER[:whole]
    assert done.reason == ("length" if whole == limit else "stop")
    assert done.usage["completion_tokens"] == whole
    assert second.calls == []
    assert [result.state for result in stored(tmp_path)] == ["done"]


async def test_what_had_come_to_its_end_is_held_to_its_constraint(tmp_path: Path) -> None:
    first, second = speller(), speller()
    whole = len(ANSWER)
    params = {"n_predict": whole + 1, "grammar": f'root ::= "{ANSWER}!"'}
    async with keeping(tmp_path, first) as (storage, listener):
        _, begun, seen = await begin(listener, first, whole, params=params)
        first.release(1)  # the end is told, and the server ends before it can store that
        await wait_all_tasks_blocked()
        await storage.written()
    async with keeping(tmp_path, second) as (_, listener):
        text, error = await go_on(listener, second, begun, seen)
    assert (text, error.code) == (ANSWER, ErrorCode.UPSTREAM_ERROR)
    assert "the grammar: it ends too early" in error.message
    (result,) = stored(tmp_path)
    assert (result.state, result.text) == ("failed", ANSWER)


@pytest.mark.parametrize("params", [{"grammar": "root ::= [a-z ]*"}, {"mirostat": 2}])
async def test_what_cannot_be_continued_is_run_again(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4, params=params)
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, second, begun, seen[:2])
        assert (text, done.reason) == (ANSWER, "stop")
        assert done.usage["completion_tokens"] == len(ANSWER)
    assert second.prompts == first.prompts
    assert second.calls[0]["seed"] == first.calls[0]["seed"]
    (result,) = stored(tmp_path)
    assert (result.state, result.text) == ("done", ANSWER)
    assert [splice.position for splice in result.continuations] == [4]
    assert result.seed == first.calls[0]["seed"]


async def test_a_second_run_that_says_something_else_ends_interrupted(tmp_path: Path) -> None:
    first, second = speller(), speller()
    params = {"grammar": "root ::= [a-z ]*"}
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4, params=params)
    second.TEXT = "tell: on the other hand"
    async with keeping(tmp_path, second) as (_, listener):
        for part in (seen[:2], []):  # and it can be read again
            text, error = await go_on(listener, second, begun, part)
            assert (text, error.code, error.retry) == (ANSWER[:4], ErrorCode.INTERRUPTED, True)
            assert "something else" in error.message
    (result,) = stored(tmp_path)
    assert (result.state, result.text, result.continuations) == ("interrupted", ANSWER[:4], [])
    assert result.usage["completion_tokens"] == 4


async def test_another_model_does_not_continue(tmp_path: Path) -> None:
    first, second = speller(), speller()
    second.properties = Properties("other", 2, 512, True, "test")
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4)
    async with keeping(tmp_path, second) as (_, listener):
        _, error = await go_on(listener, second, begun, seen)
    assert error.code == ErrorCode.INTERRUPTED
    assert "another model" in error.message


async def test_a_queued_request_runs_after_the_restart(tmp_path: Path) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        peer = await ready(listener)
        await peer.send(*(ask("tell:", stream) for stream in (1, 2, 3)))
        ids: list[str] = []
        while len(ids) < 3:
            event = await peer.next()
            if isinstance(event, Accepted):
                ids.append(event.id)
    async with keeping(tmp_path, second) as (_, listener):
        for id_ in ids:
            text, done = await go_on(listener, second, Accepted(1, id_), [])
            assert (text, done.splices) == (ANSWER, [])
    assert len(second.calls) == 3


async def test_it_waits_for_the_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_RETRY", 0.01)
    first, second = speller(), speller()
    second.reachable = False
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4, on_disconnect=0.001, timeout=30)
    async with keeping(tmp_path, second) as (_, listener):
        # Neither clock runs while the upstream is not there.
        while second.asked < 10:  # noqa: ASYNC110 - it is asked every 10 ms
            await trio.sleep(0.01)
        peer = await ready(listener)
        await peer.send(Attach(1, begun.id, CREDIT, first=len(seen), epoch=begun.epoch))
        await peer.until(Accepted)
        second.reachable = True
        second.release(100)
        pieces, done = await peer.until(Done)
        assert ("".join(seen + pieces), done.reason) == (ANSWER, "stop")


async def test_the_time_without_a_reader_begins_anew(tmp_path: Path) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        await begin(listener, first, 4, on_disconnect=0.05)
    async with keeping(tmp_path, second) as (_, listener):
        while len(listener.server.registry):  # noqa: ASYNC110
            await trio.sleep(0.01)
    (result,) = stored(tmp_path)
    assert (result.state, result.text) == ("cancelled", ANSWER[:4])


async def test_a_cancel_reaches_what_waits_for_its_upstream(tmp_path: Path) -> None:
    first, second = speller(), speller()
    second.reachable = False
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, _ = await begin(listener, first, 4)
    async with keeping(tmp_path, second) as (_, listener):
        peer = await ready(listener)
        await peer.send(Attach(1, begun.id, CREDIT), Cancel(1))
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
    (result,) = stored(tmp_path)
    assert (result.state, result.text) == ("cancelled", ANSWER[:4])
    assert result.continuations == done.splices == []  # nothing was continued


async def test_the_same_key_joins_what_the_last_server_began(tmp_path: Path) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, _ = await begin(listener, first, 4, key="k", fresh=True)
    async with keeping(tmp_path, second) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("tell:", key="k"))
        again = await peer.next()
        assert isinstance(again, Accepted)
        assert again.id == begun.id
        second.release(100)
        assert "".join((await peer.until(Done))[0]) == ANSWER
    assert len(second.calls) == 1


async def test_a_client_ahead_of_the_journal_is_told_so(tmp_path: Path) -> None:
    """As after a power cut: the client has pieces that the journal has lost."""
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4)
    ahead = [*seen, "X", "Y"]
    async with keeping(tmp_path, second) as (_, listener):
        _, error = await go_on(listener, second, begun, ahead)
        assert (error.code, error.durable) == (ErrorCode.AHEAD, 4)
        await wait_all_tasks_blocked()
        # Also when it has been continued beyond what the client has, with other pieces.
        _, error = await go_on(listener, second, begun, ahead)
        assert (error.code, error.durable) == (ErrorCode.AHEAD, 4)
        text, done = await go_on(listener, second, begun, ahead[: error.durable])
        assert (text, done.reason) == (ANSWER, "stop")


async def test_a_drained_server_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        peer, begun, seen = await begin(listener, first, 4)
        await listener.server.drain(0)
        _, error = await peer.until(Error)
        assert (error.code, error.retry) == (ErrorCode.SHUTTING_DOWN, True)
    assert stored(tmp_path) == []
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, second, begun, seen)
    assert (text, done.splices) == (ANSWER, [4])


class Improviser(Speller):
    """Never says the same twice: as with a temperature."""

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        def improvise(events: list[CompletionEvent]) -> None:
            for event in events:
                event.content = event.content.upper()
            on_events(events)

        await super().complete(prompt, params, improvise, on_sent)


async def test_what_a_power_cut_took_before_the_first_sync_is_missed(tmp_path: Path) -> None:
    """Of a generation of which only the request was saved a client may have read more."""
    data, cut = tmp_path / "data", tmp_path / "cut"
    first, second = speller(), Improviser(slots=2)
    second.paused = True
    async with keeping(data, first) as (_, listener):
        _, begun, _ = await begin(listener, first, 0)
        shutil.copytree(data, cut)
        seen = list(ANSWER[:3])  # it read on, and then the power went
    async with keeping(cut, second) as (_, listener):
        second.release(6)
        await wait_all_tasks_blocked()
        text, error = await go_on(listener, second, begun, seen)
        assert (text, error.code, error.durable) == (ANSWER[:3], ErrorCode.AHEAD, 0)
        text, done = await go_on(listener, second, begun, [])
        assert (text, done.splices) == (ANSWER.upper(), [])


async def test_a_restart_that_gave_nothing_is_not_held_against_a_reader(tmp_path: Path) -> None:
    upstreams = [speller() for _ in range(3)]
    async with keeping(tmp_path, upstreams[0]) as (_, listener):
        _, told, seen = await begin(listener, upstreams[0], 2)
    for count, upstream in ((4, upstreams[1]), (0, upstreams[2])):
        async with keeping(tmp_path, upstream) as (_, listener):
            peer = await ready(listener)
            await peer.send(Attach(1, told.id, CREDIT, first=len(seen), epoch=told.epoch))
            accepted = await peer.next()
            assert isinstance(accepted, Accepted)
            told = accepted
            upstream.release(count)
            wanted = len(seen) + count
            while len(seen) < wanted:
                seen += (await peer.until(Tokens))[0]
            if count == 0:
                await peer.send(Cancel(1))
                await peer.until(Done)
                text, done = await go_on(listener, upstream, told, seen)
                assert (text, done.reason, done.splices) == (ANSWER[:6], "cancelled", [2])


async def test_a_smaller_context_bounds_what_nobody_bounded(tmp_path: Path) -> None:
    first, second = speller(), speller()
    second.properties = Properties("fake", 2, 256, True, "test")
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4)
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, second, begun, seen)
    assert (text, done.reason) == (ANSWER, "stop")


@pytest.mark.parametrize("count", [4, len(ANSWER)])
async def test_what_was_made_says_by_which_model(tmp_path: Path, count: int) -> None:
    first, second = speller(), speller()
    second.properties = Properties("other", 2, 512, True, "test")
    async with keeping(tmp_path, first) as (storage, listener):
        _, begun, seen = await begin(listener, first, count)
        if count == len(ANSWER):
            first.release(1)
            await wait_all_tasks_blocked()
            await storage.written()
    async with keeping(tmp_path, second) as (_, listener):
        _, end = await go_on(listener, second, begun, seen)
        assert isinstance(end, Done) == (count == len(ANSWER))
    (result,) = stored(tmp_path)
    assert (result.model["name"], result.upstream) == ("fake", "fake://")


async def test_an_upstream_that_refuses_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API key may be wrong after an update; what ran must not fail for that."""
    monkeypatch.setattr(runner, "_RETRY", 0.01)
    first, second = speller(), speller()
    async with keeping(tmp_path, first) as (_, listener):
        _, begun, seen = await begin(listener, first, 4)
    second.refusal = UpstreamError("the upstream wants another API key")
    async with keeping(tmp_path, second) as (_, listener):
        while second.asked < 10:  # noqa: ASYNC110 - it is asked every 10 ms
            await trio.sleep(0.01)
        second.refusal = None
        text, done = await go_on(listener, second, begun, seen)
    assert (text, done.reason) == (ANSWER, "stop")
