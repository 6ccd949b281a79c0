"""Answers that say a written text, again and again, instead of made-up words."""

from __future__ import annotations

import re
from itertools import cycle, islice
from typing import Any

from . import pages
from .answer import Answer, Language
from .faults import Fault
from .tokens import WORDS

#: A token of a text: a word with the white space before it.
_TOKEN = re.compile(r"\s*\S+|\s+\Z")


def words_of(text: str) -> tuple[str, ...]:
    """A text as tokens.

    Raises:
        ValueError: it is empty.
    """
    words = tuple(_TOKEN.findall(text))
    if not words:
        raise ValueError("the text is empty")
    return words


class WrittenAnswer(Answer):
    """Says `language.words`; the id of a token is its place among them."""

    def __init__(
        self, request: dict[str, Any], ids: list[int], language: Language, fault: Fault | None
    ) -> None:
        self._words = [*enumerate(language.words, WORDS)]
        self._rest = cycle(self._words)
        super().__init__(request, ids, language, fault)

    def tokens(self, count: int) -> list[int]:
        """See Answer."""
        return [number for number, _ in islice(cycle(self._words), count)]

    def text(self, tokens: int) -> str:
        """See Answer."""
        return "".join(word for _, word in islice(cycle(self._words), tokens))[: self._cut]

    def render(self, now_ns: int) -> bytes:
        """See Answer."""
        self.first_ns = self.first_ns or now_ns
        number, word = next(self._rest)
        self.sent += 1
        event: dict[str, Any] = {
            "index": 0,
            "content": word,
            "tokens": [number] if self._with_ids else [],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": self.sent,
            "tokens_evaluated": len(self.ids),
        }
        if self._probabilities:
            found = pages.probabilities(number, word, self._probabilities)
            event["completion_probabilities"] = found
        return self._chunk(event)
