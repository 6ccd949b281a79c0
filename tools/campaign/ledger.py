"""The ledger: compares every piece as it comes, and records every acknowledged result."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from llcuda_net.client.stream import Piece, Result
from llcuda_net.storage import records
from tools.campaign.jobs import Job

#: Violations that are kept with their text; further ones are only counted.
MOST_TOLD = 20
#: What a reader did last, of one with a violation.
_MOST_NOTES = 24
_encoder = msgspec.msgpack.Encoder()


class Receipt(NamedTuple):
    """What the server sent a client at the end of a generation."""

    job: Job
    reason: str
    pieces: int
    splices: list[int] | None  # None: it does not say
    seen: dict[int, str] = {}  # noqa: RUF012 -- of a varied answer: what a reader got


class Ledger:
    """The ledger of one campaign.

    Attributes:
        violations: the first things that must not be.
        stories: of those of a reader, what it did before, by the violation.
        name_of: what the server at an address is called, where readers say what they did.
        counts: counters of everything else.
        new: receipts that have not been compared with the store, by generation id.
        kept: for those that have, the digest of the stored result.
        reading: the readings under way.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.stories: dict[str, list[str]] = {}
        self.name_of: Callable[[str], str] = str
        self.counts: Counter[str] = Counter()
        self.new: dict[str, Receipt] = {}
        self.kept: dict[str, bytes] = {}
        self.reading: set[Reading] = set()

    def __repr__(self) -> str:
        n = self.counts
        return f"<Ledger: {n['acknowledged']} acknowledged, {n['violations']} violations>"

    def violation(self, what: str, story: Iterable[str] = ()) -> None:
        """Record something that must not be, and what happened before."""
        self.counts["violations"] += 1
        if len(self.violations) < MOST_TOLD:
            self.violations.append(what)
            self.stories[what] = [*story, f"{_now()} noticed"]

    def acknowledge(self, id_: str, receipt: Receipt) -> None:
        """The server told a client that a generation ended and its result is stored."""
        self.counts["acknowledged"] += 1
        known = self.new.get(id_)
        if known is not None and (known.reason, known.pieces) != (receipt.reason, receipt.pieces):
            self.violation(f"{id_}: one reader got {known[1:4]}, another {receipt[1:4]}")
        if known is not None:
            self._compare(id_, known.seen, receipt.seen)
            receipt = receipt._replace(seen=known.seen | receipt.seen)
        if id_ not in self.kept or receipt.job.varied:
            self.new[id_] = receipt

    def _compare(self, id_: str, one: dict[int, str], other: dict[int, str]) -> None:
        """Two readers of a varied answer must have got the same."""
        for position in one.keys() & other.keys():
            if one[position] != other[position]:
                self.violation(
                    f"{id_}: piece {position} is {one[position]!r} for one reader, and "
                    f"{other[position]!r} for another"
                )
                return

    def life(self) -> None:
        """A server starts: no reader has read anything from it yet."""
        for reading in self.reading:
            reading.fresh = 0

    @property
    def mid_stream(self) -> int:
        """Readings that got pieces from the running server and are not over."""
        return sum(reading.fresh > 0 for reading in self.reading)


class Reading:
    """One reader of a job's answer.

    Attributes:
        received: pieces that it has, counted from the answer's first.
        fresh: those of them that came from the present server.
        cancelled: this reader has asked for the end; then the server sends no more pieces, even
            where the answer was whole before it heard of that.
    """

    def __init__(self, ledger: Ledger, job: Job, first: int = 0) -> None:
        self.received = first
        self.fresh = 0
        self.cancelled = False
        self._ledger = ledger
        self._job = job
        self._wrong = False
        self._seen: dict[int, str] = {}
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)
        ledger.reading.add(self)

    def note(self, what: str, address: str = "") -> None:
        """What this reader does, or is told, at one of several servers: to explain a violation."""
        where = f" at {self._ledger.name_of(address)}" if address else ""
        self._notes.append(f"{_now()} after {self.received} pieces: {what}{where}")

    def piece(self, piece: Piece) -> None:
        """A piece has come."""
        ledger, wanted = self._ledger, self._job.pieces
        ledger.counts["pieces"] += 1
        at = self.received
        if piece.sequence != at:
            what = "again" if piece.sequence < at else "too early"
            self._differs(f"piece {piece.sequence} came {what}, where {at} was due")
        elif self._job.varied:
            self._seen[at] = piece.text
        elif at >= len(wanted):
            self._differs(f"piece {at} {piece.text!r} came after the end")
        elif piece != wanted[at]:
            self._differs(f"piece {at} is {piece[1:]}, not {wanted[at][1:]}")
        self.received = piece.sequence + 1
        self.fresh += 1

    def end(self, id_: str, result: Result, *, tells_splices: bool = True) -> None:
        """The stream is over; `tells_splices`: it says where it was continued."""
        self._ledger.reading.discard(self)
        job, reason = self._job, result.reason
        if reason == "detached":
            return
        if reason == "cancelled":
            if not self.cancelled:
                self._differs("cancelled by nobody")
        else:
            ending = (reason, result.stop, _usage(result.usage))
            if ending != _ending(job):
                self._differs(f"it ended with {ending}, not {_ending(job)}")
            whole = job.tokens if job.varied else len(job.pieces)
            if self.received != whole and not self.cancelled:
                self._differs(f"it ended after {self.received} of {whole} pieces")
        self._ledger.counts["splices told"] += len(result.splices)
        splices = result.splices if tells_splices else None
        receipt = Receipt(job, reason, self.received, splices, self._seen)
        self._ledger.acknowledge(id_, receipt)

    def fail(self, why: str) -> None:
        """The stream ended in a way that it must not."""
        self._ledger.reading.discard(self)
        self._differs(f"after {self.received} pieces: {why}")

    def excuse(self) -> None:
        """The stream ended with an error that is allowed. Its pieces were compared."""
        self._ledger.reading.discard(self)

    def _differs(self, what: str) -> None:
        if not self._wrong:  # one wrong piece is followed by many
            self._wrong = True
            job = self._job
            level = job.ask.get("level") or "default level"
            self._ledger.violation(f"{job.kind}/{job.flavour}, {level}: {what}", self._notes)


def _now() -> str:
    """The time of day, as servers log it."""
    return f"{datetime.now(UTC):%H:%M:%S.%f}"[:-3]


def _usage(usage: dict[str, int]) -> tuple[int | None, int | None]:
    return usage.get("completion_tokens"), usage.get("prompt_tokens")


def _ending(job: Job) -> tuple[str, str | None, tuple[int, int]]:
    return job.reason, job.stop, (job.tokens, job.prompt_tokens)


# -- what is stored -----------------------------------------------------------------------------


def digest(result: records.Result) -> bytes:
    """A hash of a whole stored result."""
    return blake2b(_encoder.encode(result)).digest()


def differs(receipt: Receipt, result: records.Result) -> str | None:
    """How a stored result differs from what its reader got; None: not at all."""
    job, log = receipt.job, result.log
    cancelled = receipt.reason == "cancelled"
    found: dict[str, tuple[Any, Any]] = {
        "state": (result.state, "cancelled" if cancelled else "done"),
    }
    if receipt.splices is not None:
        spliced = [splice.position for splice in result.continuations]
        found["splices"] = (spliced, receipt.splices)
    count = len(log.pieces) if cancelled else len(job.pieces)
    if cancelled and count < receipt.pieces:
        return f"it has {count} pieces, a reader had {receipt.pieces}"
    if job.varied:
        return _of_varied(receipt, result)
    wanted = job.pieces[:count]
    found["text"] = (result.text, "".join(piece.text for piece in wanted))
    found["pieces"] = (log.pieces, [piece.text for piece in wanted])
    found["ids"] = (log.ids, [piece.id for piece in wanted])
    if "n_probs" in job.ask:
        stored = _encoder.encode(log.logprobs)
        found["logprobs"] = (stored, _encoder.encode([_tokens(piece) for piece in wanted]))
    if not cancelled:
        ending = (result.reason, result.stop, _usage(result.usage))
        found["ending"] = (ending, _ending(job))
    for name, (is_, should) in found.items():
        if is_ != should:
            return f"its {name} is {_short(is_)}, not {_short(should)}"
    return None


def _of_varied(receipt: Receipt, result: records.Result) -> str | None:
    """How a stored answer differs from what readers got, where it is another one each time."""
    pieces = result.log.pieces
    for position, text in receipt.seen.items():
        stored = pieces[position] if position < len(pieces) else None
        if stored != text:
            return f"its piece {position} is {stored!r}, and a reader had {text!r}"
    if receipt.reason != "cancelled" and len(pieces) != receipt.job.tokens:
        return f"it has {len(pieces)} pieces, and not {receipt.job.tokens}"
    return None


def _tokens(piece: Piece) -> list[Any]:
    """The log-probabilities of a piece as they are stored."""
    return [
        (t.id, t.bytes, t.logprob, [(c.id, c.bytes, c.logprob) for c in t.top])
        for t in piece.logprobs or ()
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]}…{text[-90:]}"
