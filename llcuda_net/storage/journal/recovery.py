"""Reads a journal after its writer ended: the open generations with their logs.

Records are facts about a generation, and their order hardly matters. Tokens carry their numbers, so
that copies of a record (moved to a newer segment, or written twice by an interrupted start) fit
together. A log ends before the first missing number; an end or a splice beyond that is ignored. The
dispatch with the highest number counts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from llcuda_net.errors import StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.records import (
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Opened,
    Record,
    Result,
    Splice,
    Spliced,
    TokenLog,
    decode,
)

_SUFFIX = ".journal"
#: Records between the beginning of a generation and its removal from the journal.
_Event = Appended | Spliced | Dispatched | Concluded | Ended


@dataclass
class OpenGeneration:
    """A generation in the journal whose result may not be in the store yet.

    Attributes:
        log: the tokens that the journal holds.
        splices: each continuation, in order.
        dispatched: the last dispatch, with the prompt of the last dispatch that has one.
        concluded: the upstream's end, if the journal holds it.
        ended: the generation's end, if the journal holds it.
        gap: whether the disk lost tokens: later ones were found, but not those after `log`.
    """

    opened: Opened
    log: TokenLog = field(default_factory=TokenLog)
    splices: list[Splice] = field(default_factory=list)
    dispatched: Dispatched | None = None
    concluded: Concluded | None = None
    ended: Ended | None = None
    gap: bool = False

    @property
    def id(self) -> str:
        """The generation's id."""
        return self.opened.generation

    def result(self) -> Result:
        """The result of a generation that has ended."""
        assert self.ended is not None
        return Result.of(self.opened, self.log, self.ended, self.splices)


@dataclass
class Recovered:
    """The contents of a journal folder.

    Attributes:
        generations: the open ones, oldest first.
        segments: the files that were read, by number.
        next_segment: a number that no segment has had.
        next_slot: a slot that no generation has had.
        problems: one line per damage; a torn tail of the last segment is no damage.
    """

    generations: list[OpenGeneration] = field(default_factory=list)
    segments: dict[int, Path] = field(default_factory=dict)
    next_segment: int = 1
    next_slot: int = 1
    problems: list[str] = field(default_factory=list)


def segment_path(folder: Path, number: int) -> Path:
    """The file of a segment."""
    return folder / f"{number:010d}{_SUFFIX}"


def read(folder: Path, files: Files) -> Recovered:
    """Read every segment of a folder.

    Raises:
        StorageError: a file cannot be read, or is of an unknown version.
    """
    found = Recovered()
    collected = _Collected()
    try:
        for name in files.listdir(folder):
            stem = name.removesuffix(_SUFFIX)
            if name.endswith(_SUFFIX) and stem.isdigit():
                found.segments[int(stem)] = folder / name
        found.segments = dict(sorted(found.segments.items()))
        for number, path in found.segments.items():
            last = number == max(found.segments)
            _read_segment(files.read(path), path, found, collected, last=last)
    except OSError as error:
        raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
    found.next_segment = max(found.segments, default=0) + 1
    found.next_slot = max(found.next_slot, collected.highest + 1)
    found.generations = collected.generations()
    return found


def _read_segment(
    data: bytes, path: Path, found: Recovered, collected: _Collected, *, last: bool
) -> None:
    try:
        header = framing.Header.decode(data)
    except StorageError as error:
        if error.code != StorageError.DAMAGED:
            raise
        if not last:  # in the last one, the power failed while it was started
            found.problems.append(f"{path.name}: {error}")
        return
    found.next_slot = max(found.next_slot, header.slot)
    end = framing.HEADER_SIZE
    for end, body in framing.bodies(data, header.seed):
        try:
            collected.add(decode(body))
        except StorageError as error:
            found.problems.append(f"{path.name} before byte {end}: {error}")
    if end < len(data) and not last:
        found.problems.append(f"{path.name}: nothing can be read after byte {end} of {len(data)}")


class _Collected:
    """Collects records by generation, in any order."""

    def __init__(self) -> None:
        self.highest = 0
        self._opened: dict[int, Opened] = {}
        self._rest: defaultdict[int, list[_Event]] = defaultdict(list)
        self._forgotten: set[int] = set()

    def add(self, record: Record) -> None:
        slot = record.slot
        self.highest = max(self.highest, slot)
        if isinstance(record, Opened):
            self._opened[slot] = record
        elif isinstance(record, Forgotten):
            self._forgotten.add(slot)
            self._rest.pop(slot, None)
        else:
            self._rest[slot].append(record)

    def generations(self) -> list[OpenGeneration]:
        """The open ones, oldest first. A generation that a start rewrote has several slots."""
        slots: defaultdict[str, list[int]] = defaultdict(list)
        for slot, opened in self._opened.items():
            slots[opened.generation].append(slot)
        found = []
        for of_one in slots.values():
            if self._forgotten.isdisjoint(of_one):
                records = [record for slot in of_one for record in self._rest[slot]]
                found.append(_assemble(self._opened[of_one[0]], records))
        found.sort(key=lambda generation: (generation.opened.created, generation.id))
        return found


def _assemble(opened: Opened, records: list[_Event]) -> OpenGeneration:
    out = OpenGeneration(opened)
    log = out.log = TokenLog(pieces=[], ids=[])
    appended = [record for record in records if isinstance(record, Appended)]
    appended.sort(key=lambda record: record.first)
    for record in appended:
        have = len(log.pieces)
        if record.first > have:
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
    for end in records:
        if isinstance(end, Concluded | Ended) and end.count != count:
            out.gap = True
        elif isinstance(end, Concluded):
            out.concluded = end
        elif isinstance(end, Ended):
            out.ended = end
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
