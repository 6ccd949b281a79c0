"""The slots of one upstream: who holds each, and what each was last used for.

A slot is given out only when it is known to be free. One whose request was broken off is being
released until the upstream itself says that it is idle; one that works for others is foreign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import trio

from llcuda_net.upstream.prefix_cache import Chain, shared


class Use(StrEnum):
    """What a slot is doing."""

    FREE = "free"
    BUSY = "busy"
    RELEASING = "releasing"
    FOREIGN = "foreign"


@dataclass(slots=True, eq=False)
class Slot:
    """One of an upstream's slots.

    Attributes:
        number: the upstream's id for it.
        use: see Use.
        holder: for whom it works, for reports: a user's name.
        chain: of the text that it holds in its cache, as far as we know.
        changed: when `use` last changed, on trio's clock.
    """

    number: int
    use: Use = Use.FREE
    holder: str = ""
    chain: Chain = ()
    changed: float = 0.0

    def turn(self, use: Use, holder: str = "") -> None:
        """Change its use."""
        self.use, self.holder, self.changed = use, holder, trio.current_time()


class Slots:
    """All slots of one upstream.

    Until the upstream has reported how many there are, there is one, so that somebody may try.
    """

    def __init__(self) -> None:
        self._all = [Slot(0)]
        self._gone: list[Slot] = []
        self._known = False

    def __repr__(self) -> str:
        uses = ", ".join(f"{n} {use}" for use in Use if (n := self.count(use)))
        return f"<Slots: {uses or 'none'}{'' if self._known else ' (number unknown)'}>"

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._all)

    @property
    def known(self) -> bool:
        """Whether the upstream has reported how many there are."""
        return self._known

    def count(self, use: Use) -> int:
        """How many have a use."""
        return sum(slot.use is use for slot in self._all)

    def resize(self, count: int) -> None:
        """The upstream has so many.

        Slots that went away stay with whoever holds them, also when they come back.
        """
        self._known = True
        found = {slot.number: slot for slot in (*self._gone, *self._all)}
        self._all = [found.get(number) or Slot(number) for number in range(count)]
        self._gone = [slot for slot in found.values() if slot.number >= count]

    def lost(self) -> None:
        """The process behind them is gone, and with it what they held."""
        for slot in (*self._all, *self._gone):
            slot.chain = ()

    def best(self, chain: Chain) -> tuple[Slot, int] | None:
        """The free slot that shares most with a prompt, and how many blocks.

        Where none shares anything: the one that has been idle longest, as the least likely to be
        missed by the conversation that it holds.
        """
        free = [slot for slot in self._all if slot.use is Use.FREE]
        if not free:
            return None
        best = max(free, key=lambda slot: (shared(slot.chain, chain), -slot.changed, -slot.number))
        return best, shared(best.chain, chain)

    def observe(self, working: Sequence[bool], asked: float) -> bool:
        """Note which slots the upstream reports to work; whether one became free by that.

        Args:
            asked: when it was asked, on trio's clock: a later use is not in the report.
        """
        freed = False
        for slot, works in zip(self._all, working, strict=False):
            if slot.changed >= asked or slot.use is Use.BUSY:
                continue
            if works and slot.use is Use.FREE:
                slot.turn(Use.FOREIGN)
                slot.chain = ()
            elif not works and slot.use is not Use.FREE:
                slot.turn(Use.FREE)
                freed = True
        return freed

    def expire(self, before: float) -> bool:
        """Without a report: take as free what was broken off before then; whether there is any.

        Also what others did when there still were reports.
        """
        freed = False
        for slot in self._all:
            if slot.use in (Use.RELEASING, Use.FOREIGN) and slot.changed <= before:
                slot.turn(Use.FREE)
                freed = True
        return freed
