"""A journal as a killed server leaves it, of any size, and what a start with it takes."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.journal import SEGMENT_BYTES
from llcuda_net.storage.journal.marks import NAME, mark
from llcuda_net.storage.journal.recovery import segment_path
from llcuda_net.storage.records import (
    Appended,
    Dispatched,
    Ended,
    Forgotten,
    Opened,
    Stored,
    encode,
)

#: A step in so many has records of several tokens; a sync comes after so many steps.
_GATHERED, _SYNC = 20, 4
_PIECES = [" the", " of", "ing", " a", "\n", ".", " model", " slots", " considered", ",", " is"]


@dataclass
class Filled:
    """A journal that was written.

    Attributes:
        tokens: in records of token logs.
        bytes: of all files.
    """

    tokens: int
    records: int
    bytes: int


def fill_journal(
    folder: Path,
    tokens: int,
    *,
    generations: int = 64,
    forgotten: float = 0.0,
    seed: int = 1,
    segment_bytes: int = SEGMENT_BYTES,
) -> Filled:
    """Write a journal with as many tokens, of generations that run side by side.

    Each step has one record per generation: of one token, or, in one step of twenty, of up to four.

    Args:
        folder: the journal's; made if need be.
        forgotten: the share of tokens of generations that have ended and are in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, segment_bytes)
    rng = random.Random(seed)
    over = tokens * forgotten
    if forgotten:
        _run(writer, rng, 1, generations, int(over))
        for slot in range(1, generations + 1):
            count = writer.counts[slot]
            writer.add(encode(Ended(slot=slot, count=count, state="done")))
            writer.add(encode(Forgotten(slot, _id(slot), slot)))
    _run(writer, rng, generations + 1, generations, tokens)
    writer.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Filled(writer.tokens, writer.records, size)


def _id(slot: int) -> str:
    return f"0190a1b2-0000-7000-8000-{slot:012d}"


def _run(writer: _Writer, rng: random.Random, first: int, generations: int, until: int) -> None:
    slots = range(first, first + generations)
    for slot in slots:
        messages = [{"role": "user", "content": f"Tell me of number {slot}. " * 20}]
        opened = Opened(
            slot=slot,
            generation=_id(slot),
            request={"messages": messages, "params": {"seed": slot}, "timeout": 600.0},
            created=1_700_000_000_000_000_000 + slot,
        )
        writer.add(encode(opened))
        model = {"name": "model", "hash": "0" * 64, "build_info": "b1"}
        writer.add(encode(Dispatched(slot=slot, upstream="http://gpu:8080", model=model)))
    step = 0
    while writer.tokens < until:
        step += 1
        for slot in slots:
            count = rng.randrange(1, 5) if step % _GATHERED == 0 else 1
            pieces = [_PIECES[rng.randrange(len(_PIECES))] for _ in range(count)]
            ids: list[int | None] = [rng.randrange(128_000) for _ in range(count)]
            have = writer.counts.get(slot, 0)
            writer.add(encode(Appended(slot, have, pieces, ids)))
            writer.counts[slot] = have + count
            writer.tokens += count
        writer.flush(sync=step % _SYNC == 0)


class _Writer:
    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.tokens = self.records = 0
        self.counts: dict[int, int] = {}
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._number = 0
        self._ends: dict[int, int] = {}
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._number += 1
        header = framing.Header(self._number, max(self.counts, default=0) + 1)
        self._file = segment_path(self._folder, self._number).open("xb")
        self._seed = header.seed
        self._file.write(header.encode())
        self._size = framing.HEADER_SIZE
        self.add(encode(Stored()))

    def add(self, body: bytes) -> None:
        self._buffer += framing.frame(body, self._seed)
        self._buffer += body
        self._seed += 1
        self.records += 1

    def flush(self, *, sync: bool) -> None:
        self._file.write(self._buffer)
        self._size += len(self._buffer)
        self._ends[self._number] = self._size
        self._buffer = bytearray()
        if self._size >= self._segment_bytes:
            self._file.close()
            self._begin()
        if sync:
            self.add(encode(mark(self._ends)))

    def close(self) -> None:
        self.flush(sync=False)
        self._file.close()
        body = encode(mark(self._ends))
        (self._folder / NAME).write_bytes(framing.frame(body, 0) + body)


def resident() -> int:
    """Bytes of memory that this process takes, without what belongs to files."""
    with Path("/proc/self/status").open(encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
    raise OSError("no /proc")


def main() -> None:
    """Fill a journal, or start with one: `journal.py FOLDER [TOKENS [GENERATIONS]]`."""
    import sys

    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        generations = int(sys.argv[3]) if len(sys.argv) > 3 else 64
        print(fill_journal(folder, int(sys.argv[2]), generations=generations))
        return
    from llcuda_net.storage.journal.journal import Journal

    before = resident()
    started, cpu = time.perf_counter(), time.process_time()
    pairs, found = Journal(folder).open()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    tokens = sum(entry.count for _, entry in pairs)
    grown = resident() - before
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(
        f"{len(pairs)} generations, {tokens:,} tokens, {len(found.problems)} problems: "
        f"{seconds:.2f} s ({cpu:.2f} CPU), {cpu / max(1, tokens) * 1e6:.3f} µs/token; "
        f"{grown / 1e6:.0f} MB kept, {grown / max(1, tokens):.0f} B/token; peak {peak / 1e6:.0f} MB"
    )
    os._exit(0)


if __name__ == "__main__":
    main()
