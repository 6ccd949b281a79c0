"""What a measurement sends, from what it was asked to send, fitted to its target.

Lengths are in tokens, and texts are made of words: how many tokens a word is, and how many the chat
template adds, is asked of the target before the run, by two prompts of known words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Target
from llcuda_net.bench.workload import catalogue, prompts, traces
from llcuda_net.bench.workload.asks import Ask, Work
from llcuda_net.bench.workload.generator import Generated, Sizes
from llcuda_net.bench.workload.load import what_else
from llcuda_net.bench.workload.quantiles import draw
from llcuda_net.bench.workload.replays import Replay
from llcuda_net.bench.workload.texts import WORDS as VOCABULARY
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.util.numbers import plain

#: How often every word is in the two prompts by which sizes are measured. All words are in them, as
#: in a long text of a workload: no chance is in what a word is on average.
_SHORT, _LONG = 1, 2
#: Seconds for each of them.
_PATIENCE = 60.0
#: Of a server's context: what an answer may take at most, and what is left free, since prompts are
#: some tokens longer or shorter than wanted.
_ANSWER, _SPARE = 4, 24


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a trace is replayed, and how fast.

    Attributes:
        path: the file.
        speed: how many times faster than it was.
        begin: seconds of the trace before the part.
        seconds: of the trace; None: as many as the measurement takes.
    """

    path: Path
    speed: float = 1.0
    begin: float = 0.0
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a document."""
        return {
            "file": self.path.name,
            "speed": self.speed,
            "from": self.begin,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class What:
    """What to send: one of the first three.

    Attributes:
        prompts: one of `prompts.KINDS`.
        workload: NAME or NAME@VERSION of the catalogue.
        trace: a part of a recorded trace.
        max_tokens, max_prompt: caps of answers and of prompts; None: none.
        think: factor of the think times.
        seed: of lengths and texts.
    """

    prompts: str = prompts.DEFAULT
    workload: str | None = None
    trace: Window | None = None
    max_tokens: int | None = None
    max_prompt: int | None = None
    think: float = 1.0
    seed: int = 1

    def work(self) -> Work:
        """The work itself, not fitted to any target.

        Raises:
            ConfigError: there is no such workload, or prompts or trace cannot be used.
        """
        caps: dict[str, Any] = {"max_tokens": self.max_tokens, "max_prompt": self.max_prompt}
        if self.trace is not None:
            window = self.trace
            found = traces.read(window.path, begin=window.begin, seconds=window.seconds)
            return Replay(found, self.seed, **caps)
        if self.workload is not None:
            workload = catalogue.find(self.workload)
            if workload.answer is None:
                del caps["max_tokens"]  # there are no answers
            return Generated(workload, self.seed, think=self.think, **caps)
        return prompts.parse(self.prompts, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A work for one target.

    Attributes:
        work: with the target's sizes and caps.
        notes: what a reader of the figures must know of that.
    """

    work: Work
    notes: tuple[str, ...] = ()

    @property
    def turns(self) -> float:
        """Turns of a session on average, caps and the end of a run not considered."""
        turns = self.work.workload.turns if isinstance(self.work, Generated) else None
        return 1.0 if turns is None else turns.mean

    @property
    def moment(self) -> str:
        """What a moment of a schedule starts, in the plural."""
        return "sessions" if self.turns > 1 else "requests"

    def cautions(self, warmup: float) -> list[str]:
        """What a reader of the figures must know of the work.

        Args:
            warmup: seconds before what is measured.
        """
        work, found = self.work, list(self.notes)
        if isinstance(work, Generated) and work.workload.think is not None:
            thinking = (self.turns - 1) * work.workload.think.mean * work.think
            if warmup < thinking:
                found.append(
                    f"a session thinks for {plain(thinking, 2)} s on average, and the warm-up took"
                    f" {plain(warmup, 2)} s: later turns are fewer than in the long run (--warmup)"
                )
        return found

    def as_dict(self) -> dict[str, Any] | None:
        """For a document: name, version, parameters, sizes and caps; None of prompts."""
        work = self.work
        if not isinstance(work, Generated | Replay):
            return None
        found: dict[str, Any] = {
            "described": work.described,
            "seed": work.seed,
            **work.sizes.as_dict(),
            "max_tokens": work.max_tokens,
            "max_prompt": work.max_prompt,
        }
        if isinstance(work, Replay):
            kind, name = work.trace.kind, work.trace.name
            return {**found, "trace": {"format": kind, "file": name}, "workload": None}
        return {
            **found,
            "trace": None,
            "think_factor": work.think,
            "workload": work.workload.as_dict(),
        }


async def fit(
    work: Work, targets: Iterable[Target], context: int | None = None, *, chat: bool = False
) -> Fitted:
    """The work in the words and within the context of its target; prompts stay as they are.

    Args:
        targets: of which the first says what a token is.
        context: tokens that a prompt and its answer may have together; None: not known.
        chat: prompts are sent as chats.
    """
    if not isinstance(work, Generated | Replay):
        await trio.lowlevel.checkpoint()
        return Fitted(work)
    target = next(iter(targets))
    embed = isinstance(work, Generated) and work.workload.answer is None
    chat = chat or (isinstance(work, Generated) and work.workload.shares)
    sizes = await measure_sizes(target, chat=chat, embed=embed)
    notes = []
    if embed and not sizes.measured:  # the request counts none; a prompt of the same server may be
        sizes = await measure_sizes(target, chat=chat)
        if sizes.measured:
            notes.append(
                f"{target.name} does not count the tokens of texts to embed: what a token is was"
                " measured by prompts, and how long the texts were is not known"
            )
    if not sizes.measured:
        notes.append(
            f"{target.name} does not count the tokens of prompts: a word was taken for a token, and"
            " how long the prompts were is not known"
        )
    work = replace(work, sizes=sizes)
    if context is not None and not embed:
        asked = work.max_tokens
        answer = min(asked or context, context // _ANSWER)
        prompt = context - answer - context // _SPARE
        work = replace(work, max_tokens=answer, max_prompt=min(work.max_prompt or prompt, prompt))
        if prompt == work.max_prompt or answer != asked:
            notes.append(
                f"the server's context holds {context:,} tokens: prompts have at most"
                f" {work.max_prompt:,}, answers {answer:,}"
            )
    return Fitted(work, tuple(notes))


async def measure_sizes(target: Target, *, chat: bool, embed: bool = False) -> Sizes:
    """What a token is to a target, by its own count of two prompts; of words where it counts none.

    Args:
        chat: as a chat of one message, with whatever the template adds.
        embed: by texts to embed, not by a generation.
    """
    counts = []
    for times in (_SHORT, _LONG):
        content = " ".join(
            word
            for time in range(times)
            for word in sorted(VOCABULARY, key=lambda word: draw("sizes", time, word))
        )
        ask = Ask(texts=[content]) if embed else Ask(content)
        record = Record(0, 0.0)
        with trio.move_on_after(_PATIENCE) as scope:
            try:
                await target.ask(
                    ask.prompt,
                    {"n_predict": 1, "cache_prompt": False},
                    record,
                    trio.current_time,
                    **what_else(ask, chat=chat),
                )
            except (RequestError, ConnectError):
                return Sizes()
        if scope.cancelled_caught or record.prompt_tokens <= 0:
            return Sizes()
        counts.append(record.prompt_tokens)
    words = len(VOCABULARY)
    per_word = round((counts[1] - counts[0]) / ((_LONG - _SHORT) * words), 3)
    if per_word <= 0:
        return Sizes()
    return Sizes(per_word, max(0, round(counts[0] - _SHORT * words * per_word)), measured=True)
