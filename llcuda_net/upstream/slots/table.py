"""The slots of one upstream: who holds each, and what each was last used for.

A slot is given out only when it is known to be free. One whose request was broken off is being
released until the upstream itself says that it is idle; one that works for others is foreign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import trio

from llcuda_net.upstream.prompts.prefix_cache import TOKENS_A_BLOCK, Chain, shared
from llcuda_net.upstream.slots.choice import Outlook

#: Ends of texts that are remembered, of all slots together.
_MOST_ENDS = 4096
#: Before anything is known of an upstream.
UNKNOWN = Outlook()


class Use(StrEnum):
    """What a slot is doing."""

    FREE = "free"
    BUSY = "busy"
    RELEASING = "releasing"
    FOREIGN = "foreign"


class HeldBlocks:
    """Which blocks the slots of a table hold, and where what they have held lately ended.

    Attributes:
        holders: how many slots hold each block.
        ends: the last block of each text that a slot was left with, the newest last.
    """

    __slots__ = ("ends", "holders")

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.ends: dict[int, None] = {}

    def change(self, before: Chain, after: Chain) -> None:
        """A slot holds something else."""
        holders, stays = self.holders, shared(before, after)
        for block in before[stays:]:
            if holders[block] == 1:
                del holders[block]
            else:
                holders[block] -= 1
        for block in after[stays:]:
            holders[block] = holders.get(block, 0) + 1
        if after:
            self.ends.pop(after[-1], None)
            self.ends[after[-1]] = None
            if len(self.ends) > _MOST_ENDS:
                del self.ends[next(iter(self.ends))]


class Slot:
    """One of an upstream's slots.

    Args:
        blocks: what the slots of its table hold.

    Attributes:
        number: the upstream's id for it.
        use: see Use.
        holder: for whom it works, for reports: a user's name.
        changed: when `use` last changed, on trio's clock.
    """

    __slots__ = ("_blocks", "_chain", "changed", "holder", "number", "use")

    def __init__(self, number: int, blocks: HeldBlocks | None = None) -> None:
        self.number = number
        self.use = Use.FREE
        self.holder = ""
        self.changed = 0.0
        self._chain: Chain = ()
        self._blocks = blocks or HeldBlocks()

    def __repr__(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        return f"<Slot {self.number}: {self.use}{by}, holds {len(self._chain)} blocks>"

    @property
    def chain(self) -> Chain:
        """Of the text that it holds in its cache, as far as we know."""
        return self._chain

    @chain.setter
    def chain(self, chain: Chain) -> None:
        self._blocks.change(self._chain, chain)
        self._chain = chain

    def turn(self, use: Use, holder: str = "") -> None:
        """Change its use."""
        self.use, self.holder, self.changed = use, holder, trio.current_time()

    def lost(self, kept: int) -> int:
        """How many blocks no slot would hold any more, if this one kept only the first so many."""
        chain, holders = self._chain, self._blocks.holders
        # A block is held by no more slots than the block before it.
        low, high = kept, len(chain)
        while low < high:
            middle = (low + high) // 2
            if holders[chain[middle]] > 1:
                low = middle + 1
            else:
                high = middle
        return len(chain) - low


class Slots:
    """All slots of one upstream.

    Until the upstream has reported how many there are, there is one, so that somebody may try.
    """

    def __init__(self) -> None:
        self._blocks = HeldBlocks()
        self._all = [Slot(0, self._blocks)]
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
        self._all = [found.get(number) or Slot(number, self._blocks) for number in range(count)]
        self._gone = [slot for slot in found.values() if slot.number >= count]

    def lost(self) -> None:
        """The process behind them is gone, and with it what they held."""
        for slot in (*self._all, *self._gone):
            slot.chain = ()

    def active(self) -> list[int]:
        """The numbers of those that work, be it for others or for what was broken off."""
        return [slot.number for slot in self._all if slot.use is not Use.FREE]

    def returns(self, chain: Chain) -> bool:
        """Whether a prompt goes on with what some slot was left with, be it lost since."""
        ends = self._blocks.ends
        return any(block in ends for block in reversed(chain))

    def best(self, chain: Chain, outlook: Outlook = UNKNOWN) -> tuple[Slot, int] | None:
        """The free slot that costs least for a prompt, and how many of its blocks it holds.

        Args:
            outlook: what the upstream is expected to take for the answer; see `choice`.
        """
        now, slots, unified = trio.current_time(), self._all, outlook.unified
        active = [slot.use is not Use.FREE for slot in slots]
        runs = sum(1 for at, one in enumerate(active) if one and not (at and active[at - 1]))
        numbers = [number for number, one in enumerate(active) if one]
        first, last = (numbers[0], numbers[-1]) if numbers else (len(slots), -1)
        active.append(False)  # before the first, at -1, and behind the last
        found: tuple[Slot, int] | None = None
        least: tuple[float, ...] | None = None
        for number, slot in enumerate(slots):
            if active[number]:
                continue
            joined = runs + 1 - active[number - 1] - active[number + 1]
            gaps = max(last, number) - min(first, number) - len(numbers)
            cost, blocks = outlook.splitting(joined, gaps), 0
            if slot.chain:
                blocks = shared(slot.chain, chain)
                lost = slot.lost(blocks) * TOKENS_A_BLOCK
                cost += outlook.reading(blocks * TOKENS_A_BLOCK, lost, now - slot.changed)
            rank: tuple[float, ...]
            if unified:
                rank = cost, slot.changed, number
            else:
                rank = round(cost / outlook.step_ms), joined, gaps, -blocks, number
            if least is None or rank < least:
                found, least = (slot, blocks), rank
        return found

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
