"""The journal keeps its rules, on disks that are torn, full or broken."""

from __future__ import annotations

import errno
import random
import threading
from typing import Any

import pytest
import trio
import trio.testing

import llcuda_net.storage.journal.journal
from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.appender import Appender
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.recovery import read
from llcuda_net.storage.records import Ended, Level, Splice, packed
from tests.support.storage.journals import (
    FOLDER,
    expected,
    reopened,
    running,
    segments,
    tidied,
    tokens,
)
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened


@pytest.mark.parametrize("now", [True, False])
async def test_everything_written_is_found_again(now: bool) -> None:
    files = SimulatedFiles()
    files.now = now
    async with running(files) as journal:
        one, two = journal.start(opened(1, key="k", level=Level.PROCESS)), journal.start(opened(2))
        tokens(one, 3)
        two.append(["a"], [None], [packed([[1, b"a", None, []]])])
        one.splice(3, "http://b", 5)
        tokens(one, 2)
        two.end(Ended(state="done", reason="stop"))
        await journal.written()
        first, second = reopened(files)
    assert first.log.pieces == expected(5)
    assert first.log.ids == [0, 1, 2, 3, 4]
    assert first.splices == [Splice(3, "http://b", 5)]
    assert first.opened.key == "k"
    assert first.ended is None
    assert second.log.logprobs == [packed([[1, b"a", None, []]])]
    assert second.ended is not None
    assert second.result().reason == "stop"


async def test_nothing_is_written_after_the_end() -> None:
    """A descriptor that was closed may be another file's by then."""
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 3)
    assert reopened(files)[0].log.pieces == expected(3)  # what was buffered went out at the end
    events = len(files.recorder.events)
    journal.forget(log)
    for refused in (
        lambda: tokens(log, 1),
        lambda: log.dispatched("http://b", {}),
        lambda: log.conclude("stop", None, {}),
        lambda: journal.start(opened(2)),
        journal.write,
    ):
        with pytest.raises(StorageError, match="closed"):
            refused()
    with pytest.raises(StorageError, match="closed"):
        await journal.sync()
    assert len(files.recorder.events) == events


async def test_what_is_only_buffered_is_not_written() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        tokens(journal.start(opened(1)), 3)
        assert reopened(files) == []


async def test_a_tail_torn_at_any_byte_leaves_a_prefix() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        for _ in range(6):
            tokens(log, 2)
        journal.write()
    (name,) = segments(files)
    whole = files.files[name]
    lengths = set()
    for size in range(len(whole) + 1):
        for filling in (b"", b"\0" * 700, random.Random(size).randbytes(40)):
            found = reopened(SimulatedFiles({name: bytes(whole[:size]) + filling}))
            if found:
                lengths.add(len(found[0].log.pieces))
                assert found[0].log.pieces == expected(len(found[0].log.pieces))
            else:
                assert size < len(whole)
    assert lengths == {0, 2, 4, 6, 8, 10, 12}


async def test_any_changed_byte_is_noticed() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1, level=Level.PROCESS))
        for _ in range(3):
            tokens(log, 2)
        journal.write()
    (name,) = segments(files)
    whole = files.files[name]
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x5A
        for generation in reopened(SimulatedFiles({name: bytes(changed)})):
            assert generation.log.pieces == expected(len(generation.log.pieces))
            # What the header says is found another way; what is before the request is not needed.
            assert len(generation.log.pieces) < 6 or at < whole.index(b"generation-1")


def test_a_record_left_there_by_an_earlier_writer_does_not_pass() -> None:
    header = framing.Header(7, 1)
    body = b"\x92\x05\x01"
    data = header.encode() + framing.frame(body, header.seed + 1) + body
    assert [found for _, _, found in framing.scan(data, header.seed)] == [None]
    ((_, _, found),) = framing.scan(data, header.seed + 1)
    assert found is not None
    assert bytes(found) == body


def test_a_newer_journal_is_refused() -> None:
    header = bytearray(framing.Header(1, 1).encode())
    header[7:8] = b"2"
    import struct
    import zlib

    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    with pytest.raises(StorageError, match="has version 2, this llcuda knows up to 1") as caught:
        read(FOLDER, SimulatedFiles({"0000000001.journal": bytes(header)}))
    assert caught.value.code == StorageError.REFUSED


async def test_the_watermark_follows_the_disk() -> None:
    files = SimulatedFiles()
    hold = threading.Event()
    hold.set()

    def held() -> None:
        hold.wait(300)

    files.before_sync = held
    async with running(files) as journal:
        log = journal.start(opened(1))
        log.follow()
        await journal.sync()
        hold.clear()
        tokens(log, 3)
        journal.write()
        await trio.testing.wait_all_tasks_blocked()
        assert log.durable == 0
        tokens(log, 2)  # comes too late for the sync that runs
        hold.set()
        await journal.sync()
        assert log.durable == 5
        assert await journal.progressed() == {log}


async def test_those_who_wait_share_a_sync() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        before = files.syncs
        async with trio.open_nursery() as nursery:
            for number in range(100):
                journal.start(opened(number))
                nursery.start_soon(journal.sync)
        assert files.syncs - before <= 3


async def test_the_level_process_waits_for_no_disk() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        before = files.syncs
        log = journal.start(opened(1, level=Level.PROCESS))
        tokens(log, 3)
        journal.write()
        await trio.testing.wait_all_tasks_blocked()
        assert files.syncs == before
        assert reopened(files)[0].log.pieces == expected(3)


async def test_a_failed_sync_is_the_end_and_is_not_tried_again() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        await journal.sync()
        tried = 0

        def count() -> None:
            nonlocal tried
            tried += 1

        files.before_sync = count
        files.sync_error = OSError(errno.EIO, "I/O error")
        tokens(log, 3)
        with pytest.raises(StorageError, match="restart") as caught:
            await journal.sync()
        assert caught.value.code == StorageError.FAILED
        assert not caught.value.retry
        files.sync_error = None  # the kernel would say next time that all is well
        for refused in (
            lambda: tokens(log, 1),
            lambda: journal.start(opened(2)),
            journal.write,
            lambda: log.end(Ended(state="done")),
        ):
            with pytest.raises(StorageError):
                refused()
        with pytest.raises(StorageError):
            await journal.sync()
        assert (tried, log.durable) == (1, 0)
        assert journal.refusal is journal.failed is not None


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("room", [0, 1, 9, 30, 500])
async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    room: int, now: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llcuda_net.storage.journal.journal, "PROBE", 0.001)
    files = SimulatedFiles()
    files.now = now
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 4)
        await journal.sync()
        files.room = room
        tokens(log, 200)
        with pytest.raises(StorageError, match="no room") as caught:
            await journal.written()
        assert caught.value.code == StorageError.FULL
        assert caught.value.retry
        assert reopened(files)[0].log.pieces == expected(4)
        with pytest.raises(StorageError):
            journal.start(opened(2))
        with pytest.raises(StorageError):
            tokens(log, 1)
        log.end(Ended(state="failed"))
        await trio.sleep(0.01)
        assert journal.refusal is not None
        assert journal.refusal.code == StorageError.FULL
        files.room = None
        with trio.fail_after(300):
            while journal.refusal is not None:  # noqa: ASYNC110
                await trio.sleep(0.001)
        await journal.sync()
        (found,) = reopened(files)
        assert found.log.pieces == expected(204)
        assert found.ended is not None
        assert found.ended.state == "failed"
        journal.start(opened(2))


async def test_a_disk_that_breaks_while_writing_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 4)
        await journal.sync()
        tokens(log, 4)

        def broken(*_: Any) -> int:
            raise OSError(errno.EIO, "I/O error")

        monkeypatch.setattr(files, "pwrite", broken)
        with pytest.raises(StorageError) as caught:
            await journal.written()
        assert caught.value.code == StorageError.FAILED
        assert journal.failed is not None
    assert reopened(files)[0].log.pieces == expected(4)


async def test_segments_are_deleted_when_nothing_in_them_is_open() -> None:
    files = SimulatedFiles()
    async with running(files, segment_bytes=1000) as journal:
        for number in range(40):
            log = journal.start(opened(number))
            tokens(log, 20)
            await journal.sync()
            log.end(Ended(state="done"))
            journal.forget(log)
            await journal.sync()
            await tidied(journal)
        assert len(segments(files)) <= 2
        assert journal.stats.live_bytes == 0
        assert reopened(files) == []


async def test_a_long_generation_does_not_keep_the_disk_full() -> None:
    """Its records are copied forward, again and again, while others come and go."""
    files = SimulatedFiles()
    async with running(files, segment_bytes=1000) as journal:
        long = journal.start(opened(0))
        most = 0
        for number in range(1, 120):
            tokens(long, 1)
            log = journal.start(opened(number))
            tokens(log, 20)
            await journal.sync()
            await tidied(journal)
            log.end(Ended(state="done"))
            journal.forget(log)
            most = max(most, sum(len(files.files[name]) for name in segments(files)))
        assert most < 2 * journal.stats.live_bytes + 9000
        await journal.written()
        (found,) = reopened(files)
        assert found.log.pieces == expected(119)
        assert found.id == "generation-0"


async def test_copying_ends_when_everything_is_alive() -> None:
    files = SimulatedFiles()
    async with running(files, segment_bytes=500) as journal:
        logs = [journal.start(opened(number)) for number in range(20)]
        for _ in range(30):
            for log in logs:
                tokens(log, 2)
            await journal.sync()
            await tidied(journal)
        live = journal.stats.live_bytes
        assert sum(len(files.files[name]) for name in segments(files)) < 4 * live
        assert [g.log.pieces for g in reopened(files)] == [expected(60)] * 20


async def test_a_restart_writes_everything_anew() -> None:
    files = SimulatedFiles()
    for round_ in range(4):
        journal = Journal(FOLDER, files, interval=0)
        pairs, found = journal.open()
        assert found.problems == []
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            if round_ == 0:
                log = journal.start(opened(1))
            else:
                ((generation, log),) = pairs
                assert generation.log.pieces == expected(5 * round_)
                assert log.durable == 5 * round_
            tokens(log, 5)
            nursery.cancel_scope.cancel()
        assert len(segments(files)) == 1


async def test_damage_in_an_older_segment_is_reported_and_costs_only_itself() -> None:
    files = SimulatedFiles()
    async with running(files, segment_bytes=600) as journal:
        logs = [journal.start(opened(number)) for number in range(3)]
        while len(segments(files)) < 3:
            for log in logs:
                tokens(log, 3)
            await journal.sync()
            await tidied(journal)
        late = journal.start(opened(9))
        tokens(late, 4)
        await journal.sync()
    oldest = segments(files)[0]
    files.files[oldest][files.files[oldest].index(b"t4 ")] ^= 0xFF
    found = Journal(FOLDER, files).open()
    assert len(found[1].problems) == 1
    assert oldest in found[1].problems[0]
    by_id = {generation.id: generation for generation, _ in found[0]}
    assert by_id["generation-9"].log.pieces == expected(4)
    assert any(generation.gap for generation in by_id.values())
    for generation in by_id.values():
        assert generation.log.pieces == expected(len(generation.log.pieces))


def test_nothing_is_appended_where_nothing_is_synced() -> None:
    with pytest.raises(TypeError, match="abstract method"):
        Appender(SimulatedFiles(), 1 << 20)  # type: ignore[abstract]
