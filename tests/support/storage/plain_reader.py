"""A plain reader of a journal, which holds every record until the end: what the real one must find.

It is the algorithm of earlier versions.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.marks import Marks
from llcuda_net.storage.journal.recovery import FindLost, Recovered, segment_path
from llcuda_net.storage.journal.reserve import Reserve
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Opened,
    Record,
    Splice,
    Spliced,
    Stored,
    Switch,
    Switched,
    Synced,
    TokenLog,
    decode,
    encode,
)

_SUFFIX, DAMAGED = ".journal", ".damaged"
_SYNCED = encode(Synced())[1:2]
_Event = Appended | Spliced | Switched | Dispatched | Concluded | Ended


@dataclass
class Plain:
    """An open generation, as recovery.OpenGeneration."""

    opened: Opened
    log: TokenLog = field(default_factory=TokenLog)
    splices: list[Splice] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    dispatched: Dispatched | None = None
    concluded: Concluded | None = None
    ended: Ended | None = None
    gap: bool = False


def read(
    folder: Path, files: Files, find_lost: FindLost | None = None
) -> tuple[Recovered, list[Plain]]:
    """Read every segment of a folder.

    Args:
        find_lost: asks the store; None: what it once had, it has.

    Raises:
        StorageError: a file cannot be read, or is of an unknown version.
    """
    found = Recovered()
    numbers = [0]
    try:
        for name in files.listdir(folder):
            stem = name.removesuffix(DAMAGED).removesuffix(_SUFFIX)
            if name != stem and stem.isdigit():
                numbers.append(int(stem))
                if name.endswith(_SUFFIX):
                    found.segments[int(stem)] = folder / name
        found.segments = dict(sorted(found.segments.items()))
        reserve = Reserve(folder, files).read()
        reader = _Reader(found, files, Marks(folder, files).read(), reserve)
        collected = reader.read(_Collected())
        found.stored = collected.stored
        if find_lost is not None and (lost := find_lost(found.stored)):
            found.lost = lost
            found.problems.clear()  # it is told again
            collected = reader.read(_Collected(lost))
    except OSError as error:
        raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
    found.next_segment = max(*numbers, *reader.ends, 0) + 1
    found.next_slot = max(found.next_slot, collected.highest + 1)
    generations = collected.generations()
    if collected.orphans and found.damaged:
        found.problems.append(
            f"of {collected.orphans} generations there are records but not the request: they are "
            "lost"
        )
    return found, generations


class _Reader:
    """Reads all segments, as often as it is asked.

    Attributes:
        ends: of each segment, how many bytes are known to have been on the disk.
    """

    def __init__(
        self, found: Recovered, files: Files, ends: dict[int, int], reserve: list[bytes]
    ) -> None:
        self.ends = ends
        self._found = found
        self._files = files
        self._last = max(found.segments, default=0)
        missing = [number for number in ends if number not in found.segments]
        self._missing = missing
        self._reserve = reserve
        for path in found.segments.values():
            data = files.read(path)
            seed = self._seed(data, [])
            if seed is None:
                continue
            for _, _, body in framing.scan(data, seed):
                if body is not None and body[1:2] == _SYNCED:
                    mark = decode(body)
                    if isinstance(mark, Synced):
                        for number, end in mark.ends:
                            ends[number] = max(ends.get(number, 0), end)

    def _seed(self, data: bytes, problems: list[str]) -> int | None:
        try:
            header = framing.Header.decode(data)
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            problems.append(str(error))
            return framing.seed_of(data)
        self._found.next_slot = max(self._found.next_slot, header.slot)
        return header.seed

    def read(self, collected: _Collected) -> _Collected:
        """Collect the records of all segments, and say what is damaged.

        Raises:
            OSError: a file cannot be read.
            StorageError: a segment is of an unknown version.
        """
        for number in self._missing:
            self._found.problems.append(
                f"{segment_path(Path(), number)} is gone: it was there when the last server ended"
            )
        for number, path in self._found.segments.items():
            problems: list[str] = []
            self._segment(number, self._files.read(path), collected, problems)
            if problems:
                self._found.damaged.add(number)
                self._found.problems += [f"{path.name}: {problem}" for problem in problems]
        for body in self._reserve:
            with contextlib.suppress(StorageError):
                collected.add(decode(body))
        return collected

    def _segment(
        self, number: int, data: bytes, collected: _Collected, problems: list[str]
    ) -> None:
        # Without any mark: by whether a later segment was begun.
        synced = self.ends.get(number, 0)
        if not self.ends and number != self._last:
            synced = len(data)
        of_header: list[str] = []
        seed = self._seed(data, of_header)
        if synced:  # if not, the power failed while it was started
            problems += of_header
        end = min(len(data), framing.HEADER_SIZE)
        if seed is not None:
            for start, end, body in framing.scan(data, seed):
                if body is not None:
                    try:
                        collected.add(decode(body))
                    except StorageError as error:
                        problems.append(f"before byte {end}: {error}")
                elif start >= synced:
                    return  # a torn tail
                else:
                    problems.append(f"bytes {start:,} to {end:,} of {len(data):,} are damaged")
                    if end > synced or not self.ends:
                        return
        if end < synced:
            problems.append(
                f"it ends after {end:,} bytes, and {synced:,} had been on the disk"
                if end == len(data)
                else f"nothing can be read after byte {end:,} of {len(data):,}"
            )


class _Collected:
    """Collects records by generation, in any order.

    Args:
        lost: generations that the store has lost: what the journal has of them is collected, too.
    """

    def __init__(self, lost: Collection[str] = ()) -> None:
        self.highest = 0
        self.stored: dict[str, int] = {}
        self._lost = lost
        self._opened: dict[int, Opened] = {}
        self._rest: defaultdict[int, list[_Event]] = defaultdict(list)
        self._forgotten: set[int] = set()

    def add(self, record: Record) -> None:
        slot = record.slot
        self.highest = max(self.highest, slot)
        if isinstance(record, Opened):
            self._opened[slot] = record
        elif isinstance(record, Forgotten):
            if record.generation:
                self.stored[record.generation] = record.reached
            if record.generation not in self._lost:
                self._forgotten.add(slot)
                self._rest.pop(slot, None)
        elif isinstance(record, Stored):
            self.stored.update(record.results)
        elif not isinstance(record, Synced):
            self._rest[slot].append(record)

    @property
    def orphans(self) -> int:
        """Generations whose beginning is missing."""
        return len(self._rest.keys() - self._opened.keys() - self._forgotten)

    def generations(self) -> list[Plain]:
        """The open ones, oldest first. A generation that a start rewrote has several slots."""
        slots: defaultdict[str, list[int]] = defaultdict(list)
        for slot, opened in self._opened.items():
            slots[opened.generation].append(slot)
        found = []
        for of_one in slots.values():
            if self._forgotten.isdisjoint(of_one):
                records = [record for slot in of_one for record in self._rest[slot]]
                found.append(_assemble(self._opened[of_one[0]], records))
        found.sort(key=lambda generation: (generation.opened.created, generation.opened.generation))
        return found


def _assemble(opened: Opened, records: list[_Event]) -> Plain:
    out = Plain(opened)
    log = out.log = TokenLog(pieces=[], ids=[])
    appended = [record for record in records if isinstance(record, Appended)]
    appended.sort(key=lambda record: record.first)
    switches = {
        record.position: Switch(record.position, record.kind, record.index, record.id, record.name)
        for record in records
        if isinstance(record, Switched)
    }
    positions = sorted(switches)
    for record in appended:
        have = len(log.pieces)
        behind = record.first + len(record.pieces)
        if record.first > have or bisect_left(positions, behind) < record.switches:
            out.gap = True
            break
        skip = have - record.first
        log.pieces += record.pieces[skip:]
        log.ids += record.ids[skip:]
        if record.logprobs is not None:
            if log.logprobs is None:
                log.logprobs = []
            # Copies: the decoder's are views, and would keep the whole segment.
            log.logprobs += [piece.copy() for piece in record.logprobs[skip:]]
        if record.counts is not None and log.counts is None:
            log.counts = [1] * have
        if log.counts is not None:
            log.counts += (record.counts or [1] * len(record.pieces))[skip:]
    count = len(log.pieces)
    splices = {
        Splice(record.position, record.upstream, record.epoch)
        for record in records
        if isinstance(record, Spliced)
    }
    # Epochs grow with time, so this is the order of the runs.
    out.splices = sorted(
        (splice for splice in splices if splice.position <= count),
        key=lambda splice: (splice.position, splice.epoch),
    )
    out.switches = [switches[position] for position in positions if position < count]
    for end in records:
        if isinstance(end, Concluded):
            if end.count == count:
                out.concluded = end
            else:
                out.gap = True
    ends = [record for record in records if isinstance(record, Ended)]
    if ends:
        last = max(ends, key=lambda end: end.number)
        # What was told stands: that it failed, even where tokens that nobody has are missing.
        if last.count == count or last.state != "done":
            out.ended = last
        else:
            out.gap = True
    out.dispatched = _last_dispatch([r for r in records if isinstance(r, Dispatched)])
    return out


def _last_dispatch(records: list[Dispatched]) -> Dispatched | None:
    if not records:
        return None
    records.sort(key=lambda record: record.number)
    last = records[-1]
    if last.prompt is None:
        last.prompt = next((r.prompt for r in reversed(records) if r.prompt is not None), None)
    return last
