"""The hub: many sockets, one task, and no sink that can harm another."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.upstream.interface import CompletionEvent
from llcuda_net.upstream.llama.poller import Poller, TokenLimit


class Sink:
    """Notes what it is told; raises where asked to."""

    def __init__(self, poller: Poller | None = None) -> None:
        self.data = b""
        self.lost: list[str] = []
        self.crash = False
        self.event = trio.Event()
        self.removes: list[socket.socket] = []
        self._poller = poller

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.event.set()
        for sock in self.removes:
            assert self._poller is not None
            self._poller.remove(sock)
            sock.close()
        if self.crash:
            raise ZeroDivisionError

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.event.set()
        if self.crash:
            raise ZeroDivisionError

    async def wait(self) -> None:
        with trio.fail_after(300):
            await self.event.wait()
        self.event = trio.Event()


@contextlib.contextmanager
def _pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        for ours, theirs in pairs:
            stack.enter_context(ours)
            stack.enter_context(theirs)
            ours.setblocking(False)
        yield pairs


@contextlib.asynccontextmanager
async def _running(after_batch: Callable[[], None] = lambda: None) -> AsyncIterator[Poller]:
    poller = Poller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run, after_batch)
        await wait_all_tasks_blocked()
        yield poller
        nursery.cancel_scope.cancel()


async def test_each_sink_gets_what_its_socket_gets_and_one_call_a_batch() -> None:
    with _pairs(50) as pairs:
        sinks = [Sink() for _ in pairs]
        batches: list[int] = []
        async with _running(lambda: batches.append(sum(len(s.data) > 0 for s in sinks))) as poller:
            for (ours, _), sink in zip(pairs, sinks, strict=True):
                poller.add(ours, sink)
            for number, (_, theirs) in enumerate(pairs):
                theirs.send(str(number).encode())
            for sink in sinks:
                await sink.wait()
            await wait_all_tasks_blocked()
            assert [sink.data for sink in sinks] == [str(i).encode() for i in range(50)]
            assert batches[-1] == 50
            assert len(batches) <= 2  # one wake-up serves them all


async def test_more_sockets_than_a_batch_has_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")  # as where there is none; its selectors do not bound it
    with _pairs(150) as pairs:
        sinks = [Sink() for _ in pairs]
        async with _running() as poller:
            for (ours, _), sink in zip(pairs, sinks, strict=True):
                poller.add(ours, sink)
            for turn in range(1, 6):  # from the third on in the other selector
                for _, theirs in pairs:
                    theirs.send(b"x")
                for sink in sinks:
                    while len(sink.data) < turn:
                        await sink.wait()
            for ours, _ in pairs:
                poller.remove(ours)


async def test_the_end_is_told_once_and_the_socket_let_go() -> None:
    with _pairs(1) as [(ours, theirs)]:
        async with _running() as poller:
            sink = Sink()
            poller.add(ours, sink)
            theirs.close()
            await sink.wait()
            await wait_all_tasks_blocked()
            assert sink.lost == ["it closed the connection"]
            poller.remove(ours)  # nothing happens


async def test_a_reset_is_told_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours:
            ours.setblocking(False)
            async with _running() as poller:
                sink = Sink()
                poller.add(ours, sink)
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                theirs.close()
                await sink.wait()
                assert "reset" in sink.lost[0].lower()


async def test_a_removed_socket_is_not_read() -> None:
    with _pairs(1) as [(ours, theirs)]:
        async with _running() as poller:
            sink = Sink()
            poller.add(ours, sink)
            poller.remove(ours)
            theirs.send(b"x")
            await wait_all_tasks_blocked(0.01)
            assert sink.data == b""
            poller.add(ours, sink)  # it may be added again
            await sink.wait()
            assert sink.data == b"x"


async def test_a_sink_may_remove_another_of_its_own_batch() -> None:
    with _pairs(2) as pairs, structlog.testing.capture_logs() as logs:
        async with _running() as poller:
            sinks = [Sink(poller), Sink(poller)]
            for i, (ours, _) in enumerate(pairs):
                sinks[i].removes = [pairs[1 - i][0]]
                poller.add(ours, sinks[i])
            for _, theirs in pairs:
                theirs.send(b"x")
            with trio.fail_after(300):
                while not any(sink.data for sink in sinks):
                    await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            assert sorted(sink.data for sink in sinks) == [b"", b"x"]
            assert not any(sink.lost for sink in sinks)
    assert logs == []


@pytest.mark.parametrize("end", [False, True])
async def test_a_sink_that_crashes_loses_its_socket_only(end: bool) -> None:
    with _pairs(2) as [(bad_ours, bad_theirs), (ours, theirs)]:
        async with _running() as poller:
            bad, good = Sink(), Sink()
            bad.crash = True
            poller.add(bad_ours, bad)
            poller.add(ours, good)
            if end:
                bad_theirs.close()
            else:
                bad_theirs.send(b"x")
            await bad.wait()
            await wait_all_tasks_blocked()
            assert bad.lost
            theirs.send(b"y")
            await good.wait()
            assert good.data == b"y"


async def test_removing_after_the_hub_has_stopped_is_harmless() -> None:
    with _pairs(1) as [(ours, _)]:
        async with _running() as poller:
            poller.add(ours, Sink())
        poller.remove(ours)


# -- n_predict --------------------------------------------------------------------------------


def token(text: str = "x", predicted: int = 0, ids: int = 1) -> CompletionEvent:
    return CompletionEvent(text, tokens=[1] * ids, tokens_predicted=predicted)


END = CompletionEvent(stop=True, stop_type="limit", tokens_predicted=3)


@pytest.mark.parametrize(
    ("most", "batches", "counts", "exceeded"),
    [
        (3, [[token(predicted=1)], [token(predicted=2), token(predicted=3), END]], [1, 3], False),
        (3, [[token(), token(), token()], [END]], [3, 1], False),
        (3, [[token(), token(), token(), token(), token()], [token()]], [4, 0], True),
        (3, [[token(predicted=2)], [token("xyz", predicted=5)]], [1, 1], True),
        # Its numbers do not grow, or it sends none and no text.
        (3, [[token(predicted=1)] * 9], [4], True),
        (3, [[token("")] * 9], [4], True),
        # What keeps the connection alive is no token.
        (3, [[token("", ids=0)] * 9, [token()]], [9, 1], False),
        # All in the last event.
        (3, [[CompletionEvent("much", stop=True, tokens_predicted=900)]], [1], True),
        # llama-server makes one token in any case.
        (
            0,
            [[token(predicted=1)], [CompletionEvent(stop=True, tokens_predicted=1)]],
            [1, 1],
            False,
        ),
        (None, [[token()] * 9], [9], False),
    ],
)
def test_tokens_are_counted_as_a_generation_counts_them(
    most: int | None, batches: list[list[CompletionEvent]], counts: list[int], exceeded: bool
) -> None:
    limit = TokenLimit(most)
    taken = [limit.cut(events) for events in batches]
    assert [len(events) for events in taken] == counts
    assert limit.exceeded == exceeded
    if exceeded and most is not None:
        last = next(events for events in reversed(taken) if events)[-1]
        assert (last.stop, last.stop_type, last.content) == (True, "limit", "")
        assert last.tokens_predicted == limit.count <= most
