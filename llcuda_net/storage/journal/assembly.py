"""Makes generations of records, in whatever order they come.

Records are facts about a generation, and their order hardly matters. Tokens carry their numbers, so
that copies of a record (moved to a newer segment, or written twice by an interrupted start) fit
together. A log ends before the first missing number, and before pieces of which it is not known of
which channel they are; an end, a splice or a switch beyond that is ignored. The dispatch with the
highest number counts.

Nothing is kept of what is forgotten, and of tokens only a packed log: a journal of a gigabyte must
not take many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from llcuda_net.storage.journal.marks import note
from llcuda_net.storage.packed_log import CHUNK, Chunk, PackedLog, unless_ones
from llcuda_net.storage.records import (
    DECODE_ERRORS,
    Appended,
    Concluded,
    Dispatched,
    Ended,
    Forgotten,
    Logprobs,
    Opened,
    Result,
    Splice,
    Spliced,
    Stored,
    Switch,
    Switched,
    Synced,
    TokenLog,
    damaged,
)

#: Bytes of records whose tokens are held before they are packed: some 15 MB of memory.
_UNPACKED = 2 << 20
#: The beginning of a msgpack array; its length follows.
_ARRAY = b"\xdd"


class _Tokens(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Appended, as it is read: tuples take less time and memory than lists."""

    slot: int
    first: int
    pieces: tuple[str, ...]
    ids: tuple[int | None, ...]
    logprobs: Logprobs | None = None
    counts: list[int] | None = None
    switches: int = 0


#: Records between the beginning of a generation and its removal from the journal, without tokens.
_Event = Spliced | Switched | Dispatched | Concluded | Ended
_Read = _Tokens | Opened | Forgotten | Synced | Stored | _Event
_records: msgspec.msgpack.Decoder[list[_Read]] = msgspec.msgpack.Decoder(list[_Read])


@dataclass
class OpenGeneration:
    """A generation in the journal whose result may not be in the store yet.

    Attributes:
        packed: the tokens that the journal holds.
        splices: each continuation, in order.
        switches: where the log changes between channels, in order.
        dispatched: the last dispatch, with the prompt of the last dispatch that has one.
        concluded: the upstream's end, if the journal holds it.
        ended: the generation's end, if the journal holds it.
        gap: whether the disk lost tokens: later ones were found, but not those after `packed`.
    """

    opened: Opened
    packed: PackedLog = field(default_factory=PackedLog)
    splices: list[Splice] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    dispatched: Dispatched | None = None
    concluded: Concluded | None = None
    ended: Ended | None = None
    gap: bool = False

    @property
    def id(self) -> str:
        """The generation's id."""
        return self.opened.generation

    @property
    def log(self) -> TokenLog:
        """The tokens, decoded."""
        return self.packed.unpack()

    def result(self) -> Result:
        """The result of a generation that has ended."""
        assert self.ended is not None
        return Result.of(self.opened, self.log, self.ended, self.splices, switches=self.switches)


class Collector:
    """Takes the records of a journal, and has the open generations in the end.

    Args:
        lost: generations that the store has lost: what the journal has of them is collected, too.
        ends: of each segment, how many bytes were on the disk; what marks say is added.
        store: names of the store in use; empty: not known.

    Attributes:
        stored: of the results that were stored there, by id, how many there were; see
            Forgotten.reached.
    """

    def __init__(
        self, lost: Collection[str], ends: dict[int, int], store: Collection[str] = ()
    ) -> None:
        self.stored: dict[str, int] = {}
        self._store = frozenset(store)
        self._elsewhere = False  # what is stored, is in another store
        self._ends = ends
        self._lost = lost
        self._opened: dict[int, Opened] = {}
        self._events: defaultdict[int, list[_Event]] = defaultdict(list)
        self._tails: dict[int, _Tail] = {}
        self._unpacked = 0
        self._chunks: defaultdict[int, list[Chunk]] = defaultdict(list)
        self._forgotten: set[int] = set()
        self._gone: set[str] = set()  # ids of those that are forgotten

    def add(self, bodies: Sequence[bytes]) -> None:
        """Take some records.

        Raises:
            StorageError: one does not decode; none of them is taken.
        """
        self.add_array(_ARRAY + len(bodies).to_bytes(4, "big") + b"".join(bodies))

    def add_array(self, data: bytes) -> None:
        """Take some records, encoded as one array.

        Raises:
            StorageError: as `add`.
        """
        try:
            records = _records.decode(data)
        except DECODE_ERRORS as error:
            raise damaged("a record", error) from error
        tails = self._tails
        for record in records:
            if type(record) is _Tokens:  # of most there are millions: nothing is called for them
                slot = record.slot
                if slot in tails:
                    tail = tails[slot]
                    if (
                        record.first == tail.next
                        and record.switches == tail.switches
                        and record.logprobs is None
                        and record.counts is None
                    ):
                        pieces = record.pieces
                        tail.pieces += pieces
                        tail.ids += record.ids
                        tail.next += len(pieces)
                        continue
                self._take(record)
            else:
                self._note(record)
        self._unpacked += len(data)
        if self._unpacked > _UNPACKED:
            self._pack()

    def _take(self, record: _Tokens) -> None:
        slot = record.slot
        tail = self._tails.get(slot)
        if slot in self._forgotten or (tail is not None and tail.add(record)):
            return
        if tail is not None:
            self._chunks[slot] += tail.packed()
        self._tails[slot] = tail = _Tail(record)
        tail.add(record)

    def _note(self, record: _Read) -> None:
        slot = record.slot
        if isinstance(record, Opened):
            if slot in self._forgotten:
                self._gone.add(record.generation)
            else:
                self._opened[slot] = record
        elif isinstance(record, Forgotten):
            if record.generation and not self._elsewhere:
                self.stored[record.generation] = record.reached
            if record.generation not in self._lost:
                self._forget(slot)
        elif isinstance(record, Stored):
            known = self._store and record.store
            self._elsewhere = bool(known) and self._store.isdisjoint(record.store)
            if not self._elsewhere:
                self.stored.update(record.results)
        elif isinstance(record, Synced):
            note(record, self._ends)
        elif slot not in self._forgotten:
            assert not isinstance(record, _Tokens)
            self._events[slot].append(record)

    def _forget(self, slot: int) -> None:
        self._forgotten.add(slot)
        opened = self._opened.pop(slot, None)
        if opened is not None:
            self._gone.add(opened.generation)
        self._events.pop(slot, None)
        self._tails.pop(slot, None)
        self._chunks.pop(slot, None)

    def _pack(self) -> None:
        for slot, tail in self._tails.items():
            self._chunks[slot] += tail.packed()
        self._tails.clear()
        self._unpacked = 0

    @property
    def highest(self) -> int:
        """The highest slot of all."""
        return max(chain(self._slots, self._opened, self._forgotten), default=0)

    @property
    def orphans(self) -> int:
        """Generations whose beginning is missing."""
        return len(self._slots - self._opened.keys() - self._forgotten)

    @property
    def _slots(self) -> set[int]:
        return self._events.keys() | self._tails.keys() | self._chunks.keys()

    def generations(self) -> list[OpenGeneration]:
        """The open ones, oldest first. A generation that a start rewrote has several slots."""
        self._pack()
        slots: defaultdict[str, list[int]] = defaultdict(list)
        for slot, opened in self._opened.items():
            slots[opened.generation].append(slot)
        found = []
        for id_, of_one in slots.items():
            if id_ not in self._gone:
                chunks = [chunk for slot in of_one for chunk in self._chunks.pop(slot, ())]
                events = [event for slot in of_one for event in self._events.pop(slot, ())]
                found.append(_assemble(self._opened[of_one[0]], chunks, events))
        found.sort(key=lambda generation: (generation.opened.created, generation.id))
        return found


class _Tail:
    """The pieces of a slot that came last, each after the one before, and are not packed yet.

    Attributes:
        next: number of the next piece, while each piece is a token without log-probabilities;
            else -1.
    """

    __slots__ = (
        "counts",
        "first",
        "ids",
        "least",
        "logprobs",
        "next",
        "pieces",
        "switches",
    )

    def __init__(self, record: _Tokens) -> None:
        self.first = self.next = record.first
        self.switches = record.switches
        self.least = record.first + len(record.pieces)
        self.pieces: list[str] = []
        self.ids: list[int | None] = []
        self.logprobs: Logprobs | None = None if record.logprobs is None else []
        self.counts: list[int] | None = None

    def add(self, record: _Tokens) -> bool:
        """Take a record of any kind; false: it does not belong here."""
        behind = self.first + len(self.pieces)
        if (
            record.first != behind
            or record.switches != self.switches
            or (record.logprobs is None) != (self.logprobs is None)
        ):
            return False
        if record.counts is not None and self.counts is None:
            self.counts = [1] * len(self.pieces)
        if self.counts is not None:
            self.counts += record.counts or [1] * len(record.pieces)
        self.pieces += record.pieces
        self.ids += record.ids
        if self.logprobs is not None:
            # Copies: the decoder's are views, and would keep all that was decoded with them.
            self.logprobs += [raw.copy() for raw in record.logprobs or ()]
        plain = self.counts is None and self.logprobs is None
        self.next = self.first + len(self.pieces) if plain else -1
        return True

    def packed(self) -> Iterator[Chunk]:
        """It as chunks; none where it is nonsense: the log ends before it."""
        parallel = self.ids, self.logprobs, self.counts
        if any(part is not None and len(part) != len(self.pieces) for part in parallel):
            return
        for begin in range(0, len(self.pieces), CHUNK):
            cut = slice(begin, begin + CHUNK)
            record = Appended(
                0,
                self.first + begin,
                self.pieces[cut],
                self.ids[cut],
                None if self.logprobs is None else self.logprobs[cut],
                None if self.counts is None else unless_ones(self.counts[cut]),
                self.switches,
            )
            yield Chunk.of(record, self.least)


def _assemble(opened: Opened, chunks: list[Chunk], events: list[_Event]) -> OpenGeneration:
    out = OpenGeneration(opened)
    switches = {
        event.position: Switch(event.position, event.kind, event.index, event.id, event.name)
        for event in events
        if isinstance(event, Switched)
    }
    positions = sorted(switches)
    chunks.sort(key=lambda chunk: chunk.first)
    log, count = out.packed.chunks, 0
    for chunk in chunks:
        if chunk.first > count or bisect_left(positions, chunk.least) < chunk.switches:
            out.gap = True
            break
        if chunk.behind > count:
            log.append(chunk if chunk.first == count else chunk.after(count))
            count = chunk.behind
    splices = {
        Splice(event.position, event.upstream, event.epoch)
        for event in events
        if isinstance(event, Spliced)
    }
    # Epochs grow with time, so this is the order of the runs.
    out.splices = sorted(
        (splice for splice in splices if 0 <= splice.position <= count),
        key=lambda splice: (splice.position, splice.epoch),
    )
    out.switches = [switches[position] for position in positions if 0 <= position < count]
    for end in events:
        if isinstance(end, Concluded):
            if end.count == count:
                out.concluded = end
            else:
                out.gap = True
    ends = [event for event in events if isinstance(event, Ended)]
    if ends:
        last = max(ends, key=lambda end: end.number)
        # What was told stands: that it failed, even where tokens that nobody has are missing.
        if last.count == count or last.state != "done":
            out.ended = last
        else:
            out.gap = True
    out.dispatched = _last_dispatch([e for e in events if isinstance(e, Dispatched)])
    return out


def _last_dispatch(records: list[Dispatched]) -> Dispatched | None:
    if not records:
        return None
    records.sort(key=lambda record: record.number)
    last = records[-1]
    if last.prompt is None:
        last.prompt = next((r.prompt for r in reversed(records) if r.prompt is not None), None)
    return last
