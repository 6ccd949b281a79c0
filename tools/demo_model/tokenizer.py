"""The tokenizer: byte-level BPE, learned from the corpus, the same in training and in llama.cpp.

llama.cpp runs it as tokenizer model "gpt2" with pre-tokenizer "gpt-2", so the rules here are
those of GPT-2: the text is cut by GPT-2's pattern, bytes are written as printable characters, and
merges are applied in order. No token is added at the start of a prompt.

The four markers of a conversation are control tokens. A turn is written the way llama.cpp's
built-in "phi3" template writes it, so that a server which ignores the template in the file and
guesses from the markers still produces the text that the model was trained on::

    <|user|>\\nWhat is a slot?<|end|>\\n<|assistant|>\\nA slot is ...<|end|>\\n
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
END = "<|end|>"
CONTROL = (PAD, USER, ASSISTANT, SYSTEM, END)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


class Turn(NamedTuple):
    """One question and its answer."""

    question: str
    answer: str


class DemoTokenizer:
    """Token ids for text and for conversations."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.pad = self.id_of(PAD)
        self.end = self.id_of(END)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> DemoTokenizer:
        """Learn merges from `texts`. The same texts in the same order give the same merges."""
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(CONTROL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            min_frequency=2,
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @property
    def size(self) -> int:
        """Number of tokens, control tokens included."""
        return int(self._inner.get_vocab_size())

    def id_of(self, token: str) -> int:
        """The id of a token that must exist."""
        found = self._inner.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return int(found)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a marker in it becomes its control token."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without control tokens."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def conversation(
        self, turns: Sequence[Turn], system: str | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids of a conversation, and which of them the model itself says.

        Each piece is encoded apart: llama.cpp cuts at control tokens as well, so joined and
        separate encodings agree.
        """
        ids: list[int] = []
        spoken: list[bool] = []

        def add(text: str, by_model: bool) -> None:
            piece = self.encode(text)
            ids.extend(piece)
            spoken.extend([by_model] * len(piece))

        if system is not None:
            add(f"{SYSTEM}\n{system}{END}\n", False)
        for turn in turns:
            add(f"{USER}\n{turn.question}{END}\n{ASSISTANT}\n", False)
            add(f"{turn.answer}{END}", True)
            add("\n", False)
        return ids[:-1], spoken[:-1]

    def vocabulary(self) -> list[str]:
        """Tokens by id, bytes written GPT-2's way."""
        by_id = sorted(self._inner.get_vocab(with_added_tokens=True).items(), key=lambda kv: kv[1])
        return [token for token, _ in by_id]

    def merges(self) -> list[str]:
        """Merges in order, each as ``left right``."""
        raw = json.loads(self._inner.to_str())["model"]["merges"]
        return [item if isinstance(item, str) else " ".join(item) for item in raw]
