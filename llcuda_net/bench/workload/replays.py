"""A trace sent again: its moments, its lengths, and which of its prompts begin alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llcuda_net.bench.workload.asks import Ask, Single
from llcuda_net.bench.workload.generator import WORDS, Sizes
from llcuda_net.bench.workload.schedules import Schedule
from llcuda_net.bench.workload.texts import text
from llcuda_net.bench.workload.traces import BLOCK, Trace
from llcuda_net.errors import ConfigError
from llcuda_net.util.numbers import plain


@dataclass(frozen=True, slots=True)
class Replay:
    """The work that a trace amounts to: entry by entry, with made-up texts.

    Attributes:
        seed, sizes, max_tokens, run: as of `Generated`.
        max_prompt: prompts are cut to it.
    """

    trace: Trace
    seed: int
    sizes: Sizes = WORDS
    max_tokens: int | None = None
    max_prompt: int | None = None
    run: int = 0

    @property
    def described(self) -> str:
        """In words, for a report."""
        trace = self.trace
        more = f", {trace.left_out:,} without an answer left out" if trace.left_out else ""
        return f"the {trace.kind} trace {trace.name} ({trace.total:,} requests{more})"

    def for_run(self, run: int) -> Replay:
        """The same for another run, with texts of its own."""
        return replace(self, run=run)

    def session(self, number: int) -> Single:
        """See Work."""
        entry = self.trace.entries[number % len(self.trace.entries)]
        tokens = max(1, min(entry.prompt, self.max_prompt or entry.prompt))
        name = (self.trace.name, self.seed, self.run)
        if entry.blocks is None:
            prompt = text(self.sizes.words(tokens, self.sizes.besides), *name, number)
        else:
            prompt = self._of_blocks(entry.blocks, tokens, name)
        cap = self.max_tokens
        return Single(
            Ask(
                prompt,
                max_tokens=entry.answer if cap is None else min(entry.answer, cap),
                prompt_tokens=entry.prompt,
                wanted_tokens=entry.answer,
            )
        )

    def _of_blocks(self, blocks: tuple[int, ...], tokens: int, name: tuple[object, ...]) -> str:
        """Equal ids make equal texts; the last block may be shorter than the others."""
        parts = []
        for place, block in enumerate(blocks):
            left = tokens - place * BLOCK
            if left <= 0:
                break
            besides = self.sizes.besides if place == 0 and left > self.sizes.besides else 0
            parts.append(text(self.sizes.words(min(BLOCK, left), besides), *name, "block", block))
        return " ".join(parts)


def schedule(trace: Trace, speed: float, seconds: float | None = None) -> Schedule:
    """The moments of a trace.

    Args:
        speed: how many times faster than they were they come.
        seconds: of the schedule; None: until the last one.

    Raises:
        ConfigError: none falls into the time.
    """
    moments = tuple(entry.at / speed for entry in trace.entries)
    length = seconds if seconds is not None else moments[-1] + 1.0 / speed
    moments = tuple(moment for moment in moments if moment < length)
    if not moments:
        raise ConfigError(f"no request of the trace {trace.name} falls into {plain(length)} s")
    return Schedule("trace", length, moments, 0, len(moments) / length)
