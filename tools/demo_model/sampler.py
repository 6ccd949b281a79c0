"""Batches: which token sequences the network sees, and how much each token counts.

Four kinds of sequence, drawn with fixed shares:

- head: a question and the first tokens of its answer. Cheap, and it is where the network
  decides which answer to give;
- full: a question and its whole answer;
- chat: several questions and answers in one conversation, sometimes under a system text;
- prose: a paragraph of the documentation, at low weight.

Shapes: B sequences of T tokens; every tensor of a batch is [B, T] unless it says otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.augment import Augmenter
from tools.demo_model.corpus import Entry
from tools.demo_model.tokenizer import DemoTokenizer, Turn

QUESTION_WEIGHT = 0.03
PROSE_WEIGHT = 0.1
HEAD_TOKENS = 10
USUAL_PHRASINGS = 10
LONGEST_CHAT = 640
LONGEST_PROSE = 192
IGNORE = -1

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You answer questions about llcuda.",
    "Answer briefly.",
    "You are a helpful, honest and concise assistant.",
    "Be kind and precise.",
)


@dataclass(frozen=True)
class Batch:
    """Inputs, the token that follows each, and its weight in the loss."""

    kind: str
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    question_mask: Tensor  # true on the tokens of a single question
    labels: Tensor  # [B] number of the entry, or IGNORE where there is not exactly one

    def to(self, device: str) -> Batch:
        """The same batch on `device`."""
        moved = [
            tensor.to(device)
            for tensor in (
                self.inputs,
                self.targets,
                self.weights,
                self.question_mask,
                self.labels,
            )
        ]
        return Batch(self.kind, *moved)


@dataclass(frozen=True)
class Row:
    """One sequence before padding."""

    ids: list[int]
    weights: list[float]
    question: tuple[int, int] = (0, 0)
    label: int = IGNORE


class Sampler:
    """Draws batches for ever; the same seed draws the same batches."""

    def __init__(
        self,
        entries: Sequence[Entry],
        prose: Sequence[str],
        tokenizer: DemoTokenizer,
        forbidden: Collection[str],
        seed: int,
        tokens_per_batch: int = 4096,
    ) -> None:
        self._entries = list(entries)
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._augmenter = Augmenter(self._rng, forbidden)
        self._prose = [ids for text in prose if len(ids := tokenizer.encode(text)) > 8]
        self._tokens_per_batch = tokens_per_batch
        self._order: list[int] = []

    def batch(self) -> Batch:
        """The next batch, of one kind, so that rows have similar lengths."""
        draw = self._rng.random()
        if draw < 0.62:
            return self._pack("head", 36, self._head)
        if draw < 0.86:
            return self._pack("full", 96, self._full)
        if draw < 0.96 or not self._prose:
            return self._pack("chat", 320, self._chat)
        return self._pack("prose", 128, self._paragraph)

    def _pack(self, kind: str, typical: int, draw: Callable[[], Row]) -> Batch:
        rows = [draw() for _ in range(max(4, self._tokens_per_batch // typical))]
        return self._tensors(kind, rows)

    def _next_entry(self) -> int:
        """Every entry once, one with very many phrasings more often, before any comes again."""
        if not self._order:
            for number, entry in enumerate(self._entries):
                self._order += [number] * max(1, len(entry.questions) // USUAL_PHRASINGS)
            self._rng.shuffle(self._order)
        return self._order.pop()

    def _full(self) -> Row:
        number = self._next_entry()
        entry = self._entries[number]
        question = self._augmenter.question(entry)
        system = self._rng.choice(SYSTEM_TEXTS) if self._rng.random() < 0.08 else None
        ids, spoken = self._tokenizer.conversation([Turn(question, entry.answer)], system)
        first = spoken.index(True)
        # What lies between the question and the answer is "<|end|>\n<|assistant|>\n".
        length = len(self._tokenizer.encode(question))
        weights = [1.0 if said else QUESTION_WEIGHT for said in spoken]
        return Row(ids, weights, (first - 4 - length, first - 4), number)

    def _head(self) -> Row:
        row = self._full()
        end = row.question[1] + 4 + HEAD_TOKENS
        return Row(row.ids[:end], row.weights[:end], row.question, row.label)

    def _chat(self) -> Row:
        turns: list[Turn] = []
        for _ in range(self._rng.randint(2, 6)):
            entry = self._entries[self._next_entry()]
            turns.append(Turn(self._augmenter.question(entry), entry.answer))
        system = self._rng.choice(SYSTEM_TEXTS) if self._rng.random() < 0.2 else None
        ids, spoken = self._tokenizer.conversation(turns, system)
        weights = [1.0 if said else 0.0 for said in spoken]
        return Row(ids[:LONGEST_CHAT], weights[:LONGEST_CHAT])

    def _paragraph(self) -> Row:
        ids = self._rng.choice(self._prose)
        start = self._rng.randrange(max(1, len(ids) - LONGEST_PROSE))
        ids = ids[start : start + LONGEST_PROSE]
        return Row(ids, [PROSE_WEIGHT] * len(ids))

    def _tensors(self, kind: str, rows: list[Row]) -> Batch:
        longest = max(len(row.ids) for row in rows)
        shape = (len(rows), longest - 1)
        inputs = torch.full(shape, self._tokenizer.pad)
        targets = torch.full(shape, self._tokenizer.pad)
        weights = torch.zeros(shape)
        mask = torch.zeros(shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            n = len(row.ids) - 1
            inputs[i, :n] = torch.tensor(row.ids[:-1])
            targets[i, :n] = torch.tensor(row.ids[1:])
            weights[i, :n] = torch.tensor(row.weights[1:])
            mask[i, row.question[0] : row.question[1]] = True
        labels = torch.tensor([row.label for row in rows])
        return Batch(kind, inputs, targets, weights, mask, labels)
