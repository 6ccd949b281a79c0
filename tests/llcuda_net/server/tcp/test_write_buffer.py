"""The buffer: every byte once and in order, over a stream in memory and over a real socket."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_one_way_pair, wait_all_tasks_blocked

from llcuda_net.generation.publisher import Flushable
from llcuda_net.server.tcp.room import Unsent
from llcuda_net.server.tcp.write_buffer import HIGH_WATER, LOW_WATER, WriteBuffer


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _sockets() -> Iterator[tuple[trio.SocketStream, socket.socket]]:
    """A stream for the buffer, and the plain socket at the other end, neither with much room."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.setblocking(False)
        theirs.setblocking(False)
        yield trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


def has_room(buffer: WriteBuffer) -> bool:
    """As a stream asks before it adds tokens."""
    if buffer.full:
        buffer.wait_for_room()
    return not buffer.full


@contextlib.asynccontextmanager
async def _running(
    stream: trio.abc.SendStream,
    on_room: Callable[[], None] = _nothing,
    stall: float = 60.0,
    unsent: Unsent | None = None,
) -> AsyncIterator[WriteBuffer]:
    buffer = WriteBuffer(stream, on_room, stall, set(), unsent or Unsent(1 << 30))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.run)
        await wait_all_tasks_blocked()
        yield buffer
        nursery.cancel_scope.cancel()


async def _receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    with trio.fail_after(300):
        while len(data) < count:
            await trio.lowlevel.wait_readable(sock)
            data += sock.recv(65_536)
    return data


async def test_nothing_leaves_before_the_flush() -> None:
    unflushed: set[Flushable] = set()
    with _sockets() as (stream, peer):
        buffer = WriteBuffer(stream, _nothing, 60.0, unflushed, Unsent(1 << 30))
        buffer.add(b"a")
        assert unflushed == {buffer}
        assert (len(buffer), buffer.busy) == (1, True)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        buffer.add(b"b")
        buffer.flush()
        assert peer.recv(10) == b"ab"  # at once, and with no writer task
        assert (len(buffer), buffer.busy) == (0, False)


async def test_what_the_socket_does_not_take_goes_through_the_writer() -> None:
    data = random.Random(1).randbytes(400_000)
    with _sockets() as (stream, peer):
        async with _running(stream) as buffer:
            buffer.add(data)
            buffer.flush()
            assert 0 < len(buffer) < len(data)  # a partial write, then EAGAIN
            buffer.add(b"behind")
            buffer.flush()  # must not overtake what the writer has
            assert await _receive(peer, len(data) + 6) == data + b"behind"
            with trio.fail_after(300):
                await buffer.drained()
            assert not buffer.busy
            buffer.add(b"direct again")
            buffer.flush()
            assert peer.recv(100) == b"direct again"


async def test_it_is_busy_until_the_socket_took_the_last_byte(autojump_clock: object) -> None:
    ours, theirs = lockstep_stream_pair()
    async with _running(ours) as buffer:
        buffer.add(b"x" * 1000)
        buffer.flush()
        await wait_all_tasks_blocked()
        assert len(buffer) == 0  # the writer has it in hand
        assert buffer.busy
        assert await theirs.receive_some(1000) == b"x" * 1000
        await wait_all_tasks_blocked()
        assert not buffer.busy


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_bytes_keep_their_order_whatever_their_sizes(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    frames = [rng.randbytes(rng.choice([1, 7, 300, 5_000, 90_000])) for _ in range(120)]
    want = b"".join(frames)

    async def produce(buffer: WriteBuffer) -> None:
        for frame in frames:
            while not has_room(buffer):
                await buffer.drained()
            buffer.add(frame)
            if rng.random() < 0.7:
                buffer.flush()
            if rng.random() < 0.3:
                await trio.lowlevel.checkpoint()
        buffer.flush()

    async with trio.open_nursery() as nursery:
        if kind == "socket":
            with _sockets() as (stream, peer):
                async with _running(stream) as buffer:
                    nursery.start_soon(produce, buffer)
                    assert await _receive(peer, len(want)) == want
        else:
            ours, theirs = memory_stream_one_way_pair()
            async with _running(ours) as buffer:
                nursery.start_soon(produce, buffer)
                data = b""
                while len(data) < len(want):
                    data += await theirs.receive_some(10_000)
                assert data == want


async def test_room_is_told_once_it_was_missed() -> None:
    calls = 0

    def on_room() -> None:
        nonlocal calls
        calls += 1

    with _sockets() as (stream, peer):
        async with _running(stream, on_room) as buffer:
            assert has_room(buffer)
            buffer.add(b"x" * 100)
            buffer.flush()
            assert calls == 0  # nobody was turned away
            buffer.add(b"x" * HIGH_WATER)
            assert not has_room(buffer)
            buffer.flush()
            await _receive(peer, HIGH_WATER + 100)
            await buffer.drained()
            await wait_all_tasks_blocked()
            assert calls == 1
            assert has_room(buffer)


async def test_what_is_added_for_room_is_sent_too(autojump_clock: object) -> None:
    ours, theirs = memory_stream_one_way_pair()
    more = [b"3", b"2", b"1"]

    def on_room() -> None:
        while more and has_room(buffer):
            buffer.add(more.pop() * HIGH_WATER)

    async with _running(ours, on_room) as buffer:
        buffer.add(b"0" * HIGH_WATER)
        assert not has_room(buffer)
        buffer.flush()
        data = b""
        with trio.fail_after(300):
            while len(data) < 4 * HIGH_WATER:
                data += await theirs.receive_some(1 << 20)
        assert data == b"".join(c * HIGH_WATER for c in (b"0", b"1", b"2", b"3"))


async def test_a_writer_without_progress_gives_up(autojump_clock: object) -> None:
    ours, _ = lockstep_stream_pair()
    start = trio.current_time()
    with pytest.raises(ExceptionGroup) as caught:
        async with _running(ours, stall=30.0) as buffer:
            buffer.add(b"x" * 10)
            buffer.flush()
            await trio.sleep(29)
            assert not buffer.closed
            await trio.sleep(2)
    assert caught.group_contains(trio.TooSlowError)
    assert trio.current_time() - start == pytest.approx(30)
    assert buffer.closed


async def test_a_broken_pipe_closes_it_and_raises_nothing() -> None:
    with _sockets() as (stream, peer):
        async with _running(stream) as buffer:
            peer.close()
            buffer.add(b"x")
            buffer.flush()
            assert buffer.closed
            assert len(buffer) == 0
            buffer.add(b"y")
            buffer.flush()
            assert len(buffer) == 0
            with trio.fail_after(300):
                await buffer.drained()


async def test_a_pipe_that_breaks_under_the_writer_ends_it() -> None:
    with _sockets() as (stream, peer), pytest.raises(ExceptionGroup) as caught:
        async with _running(stream) as buffer:
            buffer.add(b"x" * 500_000)
            buffer.flush()
            await wait_all_tasks_blocked()
            peer.close()
            with trio.fail_after(300):
                await buffer.drained()
            assert buffer.closed
            await trio.sleep_forever()
    assert caught.group_contains(trio.BrokenResourceError)


async def test_a_slow_but_steady_reader_is_kept(autojump_clock: object) -> None:
    with _sockets() as (stream, peer):
        async with _running(stream, stall=0.5) as buffer:
            buffer.add(b"x" * 60_000)
            buffer.flush()
            taken = 0
            start = trio.current_time()
            while taken < 60_000:
                await trio.sleep(0.05)
                with contextlib.suppress(BlockingIOError):
                    taken += len(peer.recv(3_000))
            assert trio.current_time() - start > 0.9  # longer than the limit for one write
            assert not buffer.closed


async def test_where_all_together_hold_much_each_takes_little() -> None:
    unsent = Unsent(100_000)
    with _sockets() as (one, _), _sockets() as (two, peer):
        async with _running(one, unsent=unsent) as first, _running(two, unsent=unsent) as second:
            first.add(b"x" * 99_000)
            second.add(b"y" * LOW_WATER)
            assert (first.full, second.full) == (False, True)
            second.flush()
            await _receive(peer, LOW_WATER)
            await second.drained()
            assert not second.full
            assert unsent.waiting == len(first) == 99_000
            second.add(b"y" * 100)
            assert not second.full
            second.close()
            first.close()
            assert unsent.waiting == 0


async def test_what_was_being_sent_when_it_closed_counts_no_more() -> None:
    unsent = Unsent(1 << 30)
    with _sockets() as (stream, peer):
        async with _running(stream, unsent=unsent) as buffer:
            buffer.add(b"x" * 200_000)
            buffer.flush()
            await wait_all_tasks_blocked()
            assert unsent.waiting == len(buffer) > 0
            buffer.close()
            assert unsent.waiting == 0
            await _receive(peer, 1000)
            await wait_all_tasks_blocked()
            assert unsent.waiting == 0
