"""The requests of a workload with a name: lengths drawn from its tables, by a seed; made-up texts.

Everything hangs on the workload, the seed, the number of the session and of the turn, and on what a
token is: how many words the target's tokenizer makes of one. With the same of these the requests
are the same, byte by byte, on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import Answer
from llcuda_net.bench.workload.asks import Ask, Session, Single
from llcuda_net.bench.workload.catalogue import Workload
from llcuda_net.bench.workload.quantiles import draw
from llcuda_net.bench.workload.texts import text


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many words make a prompt of so many tokens.

    Attributes:
        per_word: tokens of one word.
        besides: tokens of a request besides its words: those of the chat template.
        measured: by the target's own count; else a word is taken for a token.
    """

    per_word: float = 1.0
    besides: int = 0
    measured: bool = False

    def words(self, tokens: int, besides: int = 0) -> int:
        """The words of a text of so many tokens, at least one."""
        return max(1, round((tokens - besides) / self.per_word))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tokens_per_word": self.per_word,
            "tokens_besides": self.besides,
            "measured": self.measured,
        }


#: A word is taken for a token.
WORDS = Sizes()


@dataclass(frozen=True, slots=True)
class Generated:
    """The work that a workload amounts to.

    Attributes:
        seed: of lengths and texts.
        sizes: what a token is.
        max_tokens: the cap of an answer; None: none.
        max_prompt: the cap of a prompt, conversation included; a message is cut to its share of it,
            by the turns of its session, and a session ends before a turn that would exceed it.
            None: none.
        think: factor of the think times.
        run: which run of a measurement it is; each has texts and lengths of its own, so that no run
            finds its prompts in the server's cache. System prompts stay.
    """

    workload: Workload
    seed: int
    sizes: Sizes = WORDS
    max_tokens: int | None = None
    max_prompt: int | None = None
    think: float = 1.0
    run: int = 0

    @property
    def described(self) -> str:
        """In words, for a report."""
        return f"workload {self.workload}"

    def for_run(self, run: int) -> Generated:
        """The same for another run."""
        return replace(self, run=run)

    def session(self, number: int) -> Session:
        """See Work."""
        if self.workload.answer is None:
            return Single(self._embed(number))
        return Conversation(self, number)

    def share(self, *name: object) -> float:
        """A draw of this seed and run."""
        return draw(self.workload, self.seed, self.run, *name)

    def text(self, words: int, *name: object) -> str:
        """A text of this seed and run."""
        return text(words, self.workload, self.seed, self.run, *name)

    def answer_tokens(self, *name: object) -> int:
        """How long an answer is meant to be, before the cap."""
        assert self.workload.answer is not None
        return max(1, round(self.workload.answer.at(self.share("answer", *name))))

    def _embed(self, number: int) -> Ask:
        wanted, texts = 0, []
        for place in range(self.workload.texts):
            tokens = round(self.workload.first.at(self.share("first", number, place)))
            tokens = min(tokens, self.max_prompt or tokens)
            wanted += tokens
            texts.append(self.text(self.sizes.words(tokens), "embed", number, place))
        return Ask(texts=texts, prompt_tokens=wanted)


class Conversation:
    """One session: the whole conversation is sent each time, with the answers that came."""

    def __init__(self, work: Generated, number: int) -> None:
        self._work = work
        self._number = number
        turns = work.workload.turns
        #: How many turns it is meant to have.
        self.turns = 1 if turns is None else turns.at(work.share("turns", number))
        self.several = turns is not None
        most, system = work.max_prompt, work.workload.system
        #: Tokens of the system prompt, and of each message at most.
        self._system = system if most is None else min(system, most // 2)
        self._most = None if most is None else max(1, (most - self._system) // self.turns)
        self._messages: list[dict[str, Any]] = []
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Conversation {self._number}, turn {self._turn} of {self.turns}>"

    def first(self) -> Ask:
        """See Session."""
        work, workload = self._work, self._work.workload
        besides = work.sizes.besides
        if workload.system:
            system = self._number % workload.systems
            words = work.sizes.words(self._system, besides)
            # Of the seed alone: sessions and runs share it.
            content = text(words, workload, work.seed, "system", system)
            self._messages.append({"role": "system", "content": content})
            besides = 0
        tokens = self._cut(workload.first.at(work.share("first", self._number)))
        content = work.text(work.sizes.words(tokens, besides), "turn", self._number, 0)
        return self._ask(content, self._system + tokens)

    def _cut(self, tokens: float) -> int:
        """A message's tokens, within its share of the cap."""
        return max(1, min(round(tokens), self._most or round(tokens)))

    def following(self, answer: Answer, record: Record) -> tuple[float, Ask] | None:
        """See Session."""
        work, workload = self._work, self._work.workload
        self._turn += 1
        if self._turn >= self.turns or workload.later is None or workload.think is None:
            return None
        name = (self._number, self._turn)
        tokens = self._cut(workload.later.at(work.share("later", *name)))
        # What was counted; where the server counts nothing, what was meant.
        so_far = (record.prompt_tokens or record.wanted_prompt or 0) + record.tokens
        if work.max_prompt is not None and so_far + tokens > work.max_prompt:
            return None
        self._messages.append({"role": "assistant", "content": answer.text})
        content = work.text(work.sizes.words(tokens), "turn", *name)
        pause = workload.think.at(work.share("think", *name)) * work.think
        return pause, self._ask(content, so_far + tokens)

    def _ask(self, content: str, prompt_tokens: int) -> Ask:
        self._messages.append({"role": "user", "content": content})
        wanted = self._work.answer_tokens(self._number, self._turn)
        cap = self._work.max_tokens
        return Ask(
            prompt=content,
            messages=list(self._messages) if len(self._messages) > 1 or self.several else None,
            max_tokens=wanted if cap is None else min(wanted, cap),
            prompt_tokens=prompt_tokens,
            wanted_tokens=wanted,
        )
