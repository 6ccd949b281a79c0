"""Which free slot a prompt gets: the one that costs least, in milliseconds.

Theory. A llama-server without `--kv-unified` has a KV cache for each slot, and computes in one
batch only slots whose numbers follow each other. So a decode step takes as many batches as the
active slots have runs of consecutive numbers (llama.cpp, `llama_batch_allocr::split_equal`, with
`sequential`), and every stream waits for all of them. Measured with 8 of 32 slots active on an
H200: 2.9 ms a step in one run, 12.9 in two or three, 19.8 in six or more; with 4 of 8 on two CPU
cores: 21.2 ms in one, 28.4 in two, 31.5 in four. Both follow `whole + split * (1 - 1 / runs)`, with
a `split` of 5.8 and of 0.7 times `whole`. It is learnt for each upstream (see `step_time`), and is
zero where the cache is unified. Against it stands what a slot holds: tokens of the prompt that need
not be read again, and tokens of another conversation that will have to be, if that comes back.
While a prompt is read all streams stand still, as they do in each batch of a split step: both are
time of every stream, so how many there are is a factor of all costs, and is left out. A choice
outlives its answer, since gaps close one request at a time: a rule that counts only what a step
takes now leaves two groups apart for ever. So each run counts as much as the second one, and each
free slot between the groups as a part of that (`tools/eval_slots.py` simulates it). Slots whose
costs differ by less than a step are equal: the lowest number with fewest runs and gaps is taken;
where the cache is unified, of equal ones the one that has been idle longest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Milliseconds a step takes longer when it is split as much as can be, and those to read a token
#: of a prompt, before anything was measured: from between a GPU and two CPU cores.
SPLIT_MS, READ_MS = 1.0, 0.5
#: Milliseconds of a decode step, before any was measured.
STEP_MS = 10.0
#: Tokens of an answer, before any answer is known.
ANSWER = 128.0
#: Share of what slots hold that is asked for again, before that is known.
REUSE = 0.5
#: So many free slots between those that are active count as much as a run more.
GAPS_A_RUN = 8
#: Seconds in which it becomes half as likely that what a slot holds is asked for again.
HALF_LIFE = 300.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an upstream is expected to take for an answer.

    Attributes:
        read_ms: milliseconds to read one token of a prompt.
        split_ms: milliseconds that a decode step takes longer when its batch is split as much as
            can be; 0: its KV cache is unified.
        step_ms: milliseconds of a step that is not split: smaller differences do not count.
        steps: of the answer, so many tokens as it is expected to have.
        reuse: the share of what slots are left with that is asked for again.
        found: the share of what slots are thought to hold that the upstream really finds there.
    """

    read_ms: float = READ_MS
    split_ms: float = SPLIT_MS
    step_ms: float = STEP_MS
    steps: float = ANSWER
    reuse: float = REUSE
    found: float = 1.0

    @property
    def unified(self) -> bool:
        """Whether it does not matter which slots are active together."""
        return self.split_ms <= 0

    def splitting(self, runs: int, gaps: int) -> float:
        """Milliseconds of every stream that a split takes while the answer is made, and leads to.

        Each run counts as much as the second one does, which costs most: they are joined one by
        one, and for what the last of many costs alone none would ever be. Each free slot between
        them has to be filled before they join, and counts as a part of that.

        Args:
            runs: of active slots with consecutive numbers, the one chosen included.
            gaps: free slots between the first active one and the last.
        """
        return self.steps * self.split_ms * spread(2) * (runs - 1 + gaps / GAPS_A_RUN)

    def reading(self, held: float, lost: float, idle: float) -> float:
        """Milliseconds of every stream for reading, beyond those of a slot that holds nothing.

        Args:
            held: tokens of the prompt that the slot holds: they need not be read.
            lost: tokens that only this slot holds, and would hold no more: they may be read again.
            idle: seconds since the slot was last used.
        """
        again = self.reuse * math.exp2(-idle / HALF_LIFE)
        return self.read_ms * self.found * (lost * again - held)


def spread(runs: int) -> float:
    """How much of the worst split a batch of so many runs has: 0 for one, towards 1 for many."""
    return 1.0 - 1.0 / max(1, runs)


def runs_of(numbers: Sequence[int]) -> int:
    """How many runs of consecutive numbers there are; the numbers are in order."""
    return sum(not at or number != numbers[at - 1] + 1 for at, number in enumerate(numbers))
