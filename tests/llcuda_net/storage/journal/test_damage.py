"""Damage in a journal is told from a torn tail, is reported, and costs only itself."""

from __future__ import annotations

import functools
import random
import zlib
from functools import partial
from typing import Any

import pytest
import trio

from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal import recovery
from llcuda_net.storage.journal.journal import Journal
from llcuda_net.storage.journal.marks import NAME
from llcuda_net.storage.records import Level
from tests.support.storage.journals import FOLDER, expected, running, segments, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened

CORRUPTIONS, WORKLOADS = 200, 20


def copied(files: SimulatedFiles) -> SimulatedFiles:
    return SimulatedFiles({name: bytes(data) for name, data in files.files.items()})


async def workload(files: SimulatedFiles, rng: random.Random, kept: dict[str, int]) -> None:
    """Generations of which `kept` says how many pieces are on the disk, acknowledged."""
    async with running(files, segment_bytes=rng.choice([2000, 1 << 20])) as journal:
        logs = []
        for number in range(rng.randrange(1, 7)):
            log = journal.start(opened(number, level=Level.DISK))
            logs.append(log)
            await journal.sync()
            for _ in range(rng.randrange(5)):
                for one in logs:
                    tokens(one, rng.randrange(1, 4))
                await journal.sync()
            if len(logs) > 2 and rng.random() < 0.3:
                journal.forget(logs.pop(0), number + 1)
        kept |= {log.opened.generation: log.durable for log in logs}


def corrupted(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out))
    how = rng.randrange(3)
    if how == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        size = rng.choice([16, 64, 512])
        at -= at % size
        out[at : at + size] = bytes(len(out[at : at + size]))
    else:
        del out[at:]
    return bytes(out)


def silent_losses(files: SimulatedFiles, kept: dict[str, int]) -> list[str]:
    """What was acknowledged and is not there, although nothing was reported."""
    pairs, found = Journal(FOLDER, files).open()
    by_id = {generation.id: generation for generation, _ in pairs}
    out = []
    for name, count in kept.items():
        have = by_id[name].log.pieces if name in by_id else None
        if have is not None:
            assert have == expected(len(have))  # never a wrong one
        if (have is None or len(have) < count) and not found.problems:
            out.append(name)
    return out


@functools.cache
def worked(seed: int) -> tuple[SimulatedFiles, dict[str, int]]:
    kept: dict[str, int] = {}
    files = SimulatedFiles()
    trio.run(partial(workload, files, random.Random(seed), kept))
    return files, kept


def many(*, marked: bool) -> tuple[int, int]:
    """How many of the corruptions lost something silently, and how many were reported."""
    silent = told = 0
    for seed in range(CORRUPTIONS):
        original, kept = worked(seed % WORKLOADS)
        files = copied(original)
        newest = segments(files)[-1]
        data = bytes(files.files[newest])
        files.files[newest][:] = corrupted(data, random.Random(seed))
        if not marked:  # as it was: bad bytes in the newest segment are its end
            files.files.pop(NAME)
            strip_marks(files)
        silent += bool(silent_losses(files, kept))
        told += any(name.endswith(recovery.DAMAGED) for name in files.files)
    return silent, told


def strip_marks(files: SimulatedFiles) -> None:
    """Write the records anew without the marks, up to the first bad byte."""
    for name in segments(files):
        data = bytes(files.files[name])
        if len(data) < framing.HEADER_SIZE or zlib.crc32(
            data[: framing.HEADER_SIZE - 4]
        ) != int.from_bytes(data[framing.HEADER_SIZE - 4 : framing.HEADER_SIZE], "little"):
            continue
        seed = framing.Header.decode(data).seed
        out = bytearray(data[: framing.HEADER_SIZE])
        count = 0
        for start, _, body in framing.scan(data, seed):
            if body is None:
                out += data[start:]
                break
            if body[1:2] != recovery._SYNCED:
                out += framing.frame(body, seed + count) + body
                count += 1
        files.files[name][:] = out


def test_no_corruption_of_the_newest_segment_is_silent() -> None:
    silent, told = many(marked=True)
    assert silent == 0
    assert told > CORRUPTIONS // 2


def test_without_marks_many_are() -> None:
    """The negative control."""
    silent, _ = many(marked=False)
    assert silent > CORRUPTIONS // 10


async def damaged(at: float, size: int = 1) -> tuple[SimulatedFiles, dict[str, Any], list[str]]:
    """Two generations, one after the other, with damage somewhere in the middle."""
    files = SimulatedFiles()
    async with running(files) as journal:
        for number in (1, 2, 3):
            log = journal.start(opened(number))
            tokens(log, 5)
            await journal.sync()
    (name,) = segments(files)
    data = files.files[name]
    where = int(len(data) * at)
    data[where : where + size] = bytes(b ^ 0xFF for b in data[where : where + size])
    pairs, found = Journal(FOLDER, files).open()
    return files, {g.id: g.log.pieces for g, _ in pairs}, found.problems


async def test_what_follows_the_damage_is_found_again() -> None:
    files, found, problems = await damaged(0.5, 30)
    assert found["generation-1"] == found["generation-3"] == expected(5)
    assert any("are damaged" in problem for problem in problems)
    assert "0000000001.journal.damaged" in files.files  # set aside
    assert segments(files) == ["0000000002.journal"]
    # The next start reads it no more, and does not give its number again.
    again, report = Journal(FOLDER, files).open()
    assert report.problems == []
    assert {g.id for g, _ in again} == set(found)
    assert segments(files) == ["0000000003.journal"]
    assert "0000000001.journal.damaged" in files.files


async def test_a_damaged_header_costs_only_itself() -> None:
    _, found, problems = await damaged(0.0, 28)
    assert found == {f"generation-{n}": expected(5) for n in (1, 2, 3)}
    assert any("header" in problem for problem in problems)


async def test_a_segment_that_is_gone_is_missed() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        journal.start(opened(1))
        await journal.sync()
    files.files.pop(segments(files)[0])
    pairs, found = Journal(FOLDER, files).open()
    assert pairs == []
    assert "is gone" in found.problems[0]


@pytest.mark.parametrize("hole", [40, 300])
async def test_holes_behind_the_last_mark_are_a_torn_tail(hole: int) -> None:
    """A power cut may leave them; nothing behind the first one is used, and nothing reported."""
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        tokens(log, 5)
        await journal.sync()
        image = copied(files)
        synced = len(image.files[segments(image)[0]])
        late = journal.start(opened(2, level=Level.PROCESS))
        for _ in range(20):
            tokens(late, 3)
        await journal.written()
        image.files[segments(image)[0]][:] = files.files[segments(files)[0]]
    data = image.files[segments(image)[0]]
    data[synced + 10 : synced + 10 + hole] = bytes(hole)
    pairs, found = Journal(FOLDER, image).open()
    assert found.problems == []
    assert [(g.id, g.log.pieces) for g, _ in pairs] == [("generation-1", expected(5))]
    assert not any(name.endswith(recovery.DAMAGED) for name in image.files)


def test_a_mark_that_is_damaged_itself_is_no_witness() -> None:
    files, kept = worked(3)
    for at in range(len(files.files[NAME])):
        image = copied(files)
        image.files[NAME][at] ^= 0x10
        pairs, found = Journal(FOLDER, image).open()
        assert found.problems == []
        assert kept.keys() <= {g.id for g, _ in pairs}
