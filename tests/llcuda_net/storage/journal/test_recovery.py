"""A start finds what a plain reader finds, however a journal was written and damaged."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.storage.journal import assembly
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.assembly import OpenGeneration
from llcuda_net.storage.journal.journal import KEEP, Journal
from llcuda_net.storage.journal.marks import NAME, mark
from llcuda_net.storage.journal.recovery import read, segment_path
from llcuda_net.storage.packed_log import CHUNK
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Record,
    Spliced,
    Stored,
    Switched,
    encode,
    packed,
)
from tests.support.storage import plain_reader
from tests.support.storage.journals import FOLDER, expected, running, segments, tidied, tokens
from tests.support.storage.power_cut import SimulatedFiles
from tests.support.storage.records import opened

#: Bytes of a small segment.
SEGMENT = 8000


@dataclass
class Written:
    """A journal that is being made, as a server and its starts might leave one."""

    rng: random.Random
    files: dict[str, bytes] = field(default_factory=dict)
    number: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    header: framing.Header = field(default_factory=lambda: framing.Header(0, 0))
    count: int = 0
    slot: int = 0
    said: dict[int, list[Record]] = field(default_factory=dict)

    def begin(self) -> None:
        self.close()
        self.number += 1
        self.header = framing.Header(self.number, self.slot + 1)
        self.data, self.count = bytearray(self.header.encode()), 0
        self.write(Stored(results=[("stored", 1)]))

    def close(self) -> None:
        if self.number:
            self.files[segment_path(FOLDER, self.number).name] = bytes(self.data)

    def write(self, record: Record) -> None:
        body = encode(record)
        self.data += framing.frame(body, self.header.seed + self.count) + body
        self.count += 1

    def say(self, slot: int, record: Record) -> None:
        """A record of a generation, which may be written again later, in any order."""
        self.said.setdefault(slot, []).append(record)
        self.write(record)

    def copy(self, slot: int) -> None:
        """What a rotation moves to a newer segment, or a start that was cut off wrote twice."""
        for record in self.said[slot]:
            if self.rng.random() < 0.8:
                self.write(record)

    def synced(self) -> None:
        self.ends[self.number] = len(self.data)
        self.write(mark(self.ends))


class Generation:
    """One that grows in a journal; its pieces follow from its number and their places."""

    def __init__(self, journal: Written, number: int) -> None:
        self.journal, self.number, self.rng = journal, number, journal.rng
        journal.slot += 1
        self.slot = journal.slot
        self.count = self.switches = self.dispatches = 0
        self.scored = self.rng.random() < 0.2
        journal.say(self.slot, opened(number, slot=self.slot))

    def grow(self) -> None:
        size = self.rng.choice([1, 1, 1, 2, 5])
        at = range(self.count, self.count + size)
        logprobs = [packed([[i, b"x", -0.5, []]]) for i in at] if self.scored else None
        # Where it was cut depends on the run; what is at a place does not.
        counts = [2 if i % 11 == 7 else 1 for i in at]
        pieces = [f"{self.number}/{i} " for i in at]
        ids = [None if i % 5 == 4 else i for i in at]
        many = counts if 2 in counts else None
        record = Appended(self.slot, self.count, pieces, ids, logprobs, many, self.switches)
        self.journal.say(self.slot, record)
        self.count += size

    def step(self) -> None:
        how = self.rng.random()
        say = self.journal.say
        if how < 0.75:
            self.grow()
        elif how < 0.8:
            say(self.slot, Spliced(self.slot, self.count, "http://b", self.rng.randrange(9)))
        elif how < 0.85:
            say(self.slot, Switched(self.slot, self.count, self.rng.choice(["text", "reasoning"])))
            self.switches += 1
            self.grow()
        elif how < 0.93:
            prompt = "rendered" if self.rng.random() < 0.5 else None
            record = Dispatched(
                slot=self.slot, number=self.dispatches, upstream="http://a", prompt=prompt
            )
            say(self.slot, record)
            self.dispatches += 1
        elif how < 0.95:
            self.journal.copy(self.slot)
        elif how < 0.97:
            say(self.slot, Concluded(slot=self.slot, count=self.count, reason="stop"))
        else:
            state = self.rng.choice(["done", "failed"])
            say(self.slot, Ended(slot=self.slot, count=self.count, state=state))


def journal_of(rng: random.Random) -> dict[str, bytes]:
    journal = Written(rng)
    journal.begin()
    open_: list[Generation] = []
    for number in range(rng.randrange(10, 120)):
        if not open_ or rng.random() < 0.1:
            open_.append(Generation(journal, number))
        for one in open_:
            if rng.random() < 0.7:
                one.step()
        if rng.random() < 0.1:
            gone = open_.pop(rng.randrange(len(open_)))
            id_ = f"generation-{gone.number}" if rng.random() < 0.7 else ""
            journal.write(Forgotten(gone.slot, id_, gone.number))
        if rng.random() < 0.3:
            journal.synced()
        if rng.random() < 0.1:
            journal.begin()
    journal.close()
    if rng.random() < 0.7:
        body = encode(mark(journal.ends))
        journal.files[NAME] = framing.frame(body, 0) + body
    return journal.files


def damage(files: dict[str, bytes], rng: random.Random) -> None:
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        name = rng.choice(sorted(files))
        data = bytearray(files[name])
        at = rng.randrange(len(data))
        how = rng.randrange(5)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        elif how == 2:
            del data[at:]
            if not data:
                data += b"\0"
        elif how == 3:
            data += rng.randbytes(rng.randrange(40))
        elif len(files) > 1:
            del files[name]
            continue
        files[name] = bytes(data)


def shown(one: OpenGeneration | plain_reader.Plain) -> tuple[object, ...]:
    log = one.log
    counts = log.counts if log.counts is not None and 2 in log.counts else None
    scores = None if not log.pieces or log.logprobs is None else [bytes(r) for r in log.logprobs]
    opened_ = encode(one.opened)
    events = [None if e is None else encode(e) for e in (one.dispatched, one.concluded, one.ended)]
    return (
        *(opened_, log.pieces, log.ids, counts, scores, one.splices, one.switches),
        *(one.gap, events),
    )


@pytest.mark.parametrize("unpacked", [0, 300, 1 << 20])
@given(seed=st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=150)
def test_it_finds_what_a_plain_reader_finds(unpacked: int, seed: int) -> None:
    rng = random.Random(seed)
    files = journal_of(rng)
    damage(files, rng)
    lost = {"stored", *(f"generation-{rng.randrange(9)}" for _ in range(3))}

    def find_lost(stored: dict[str, int]) -> set[str]:
        return lost & stored.keys() if seed % 3 == 0 else set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "_UNPACKED", unpacked)
        patch.setattr(framing, "RUN", rng.choice([1, 7, 1024]))
        found = read(FOLDER, SimulatedFiles(files), find_lost)
    plain, generations = plain_reader.read(FOLDER, SimulatedFiles(files), find_lost)
    assert [shown(one) for one in found.generations] == [shown(one) for one in generations]
    assert found.problems == plain.problems
    assert found.damaged == plain.damaged
    assert (found.stored, found.lost) == (plain.stored, plain.lost)
    assert (found.next_segment, found.next_slot) == (plain.next_segment, plain.next_slot)


async def test_a_start_writes_several_segments_and_the_next_one_finds_them() -> None:
    files = SimulatedFiles()
    async with running(files) as journal:
        for number in range(10):
            tokens(journal.start(opened(number)), 60)
        await journal.sync()
    for _ in range(3):
        journal = Journal(FOLDER, files, segment_bytes=1000)
        pairs, found = journal.open()
        assert found.problems == []
        assert [g.log.pieces for g, _ in pairs] == [expected(60)] * 10
        assert len(segments(files)) >= 4
        assert journal.stats.segments == len(segments(files))
        sizes = [len(files.files[name]) for name in segments(files)]
        assert max(sizes) < 3000


async def test_what_a_start_leaves_is_read_in_large_pieces() -> None:
    """One record per CHUNK of tokens, whatever the records were before."""
    files = SimulatedFiles()
    async with running(files) as journal:
        log = journal.start(opened(1))
        for _ in range(CHUNK + 10):
            tokens(log, 1)
        await journal.sync()
    Journal(FOLDER, files).open()
    (name,) = segments(files)
    data = bytes(files.files[name])
    bodies = [body for _, _, body in framing.scan(data, framing.Header.decode(data).seed)]
    assert len(bodies) == 4  # what is stored, the request, two of tokens


class CountedFiles(SimulatedFiles):
    """A disk that counts what is read."""

    read_bytes = 0

    def read(self, path: Path) -> bytes:
        data = super().read(path)
        self.read_bytes += len(data)
        return data


async def test_what_a_start_reads_is_bounded_by_what_is_live() -> None:
    """Twice what is live, and KEEP segments beside the newest, whatever was ever written."""
    files = SimulatedFiles()
    async with running(files, segment_bytes=SEGMENT) as journal:
        long = journal.start(opened(0))
        large = [journal.start(opened(n)) for n in range(1, 9)]
        for number in range(10, 600):
            tokens(long, 1)
            short = journal.start(opened(number))
            tokens(short, 30)
            for one in large if number < 400 else ():
                tokens(one, 8)
            await journal.sync()
            await tidied(journal)
            short.end(Ended(state="done"))
            journal.forget(short)
            if number in (200, 400):  # many end at once, and the journal shrinks
                for one in large:
                    journal.forget(one)
                large = [journal.start(opened(number * 100 + n)) for n in range(8)]
        await journal.sync()
        await tidied(journal)
        live, written = journal.stats.live_bytes, journal.stats.bytes
    counted = CountedFiles({name: bytes(data) for name, data in files.files.items()})
    pairs, found = Journal(FOLDER, counted).open()
    assert found.problems == []
    assert len(pairs) == 9
    assert pairs[0][0].log.pieces == expected(590)
    assert counted.read_bytes < 2 * live + (KEEP + 2) * SEGMENT
    assert counted.read_bytes < written // 8
