"""How a chat is asked of a server, as far as that server takes it. No I/O.

Servers agree on messages, and differ in the rest: some refuse a field that they do not know, some
pass it over in silence, and newer models of OpenAI's refuse `max_tokens` by that name. What a
server refuses by name is left out, or written as it wants it, from then on.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

#: Servers that know `cache_prompt`, by who owns their models.
_KNOW_CACHE = frozenset({"llamacpp", "llcuda"})
#: Fields without which an answer can be measured, though less well, and what is lost.
_SPARE = {
    "ignore_eos": "answers end where the model ends them (the server refuses ignore_eos)",
    "min_tokens": "answers end where the model ends them (the server refuses min_tokens, too)",
    "stream_options": "the server refuses stream_options: it may not count tokens",
    "cache_prompt": "the server refuses cache_prompt: prompts may come from its cache",
    "seed": "the server refuses seed: answers differ from run to run",
}


class Dialect:
    """What a server has refused so far, and what it is asked therefore.

    Attributes:
        refused: the fields that it does not take.
        sent_without: those that a request would have had.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.sent_without: set[str] = set()

    def __repr__(self) -> str:
        return f"<Dialect without {', '.join(sorted(self.refused)) or 'nothing'}>"

    def body(
        self, messages: list[dict[str, Any]], params: dict[str, Any], model: str | None, owner: str
    ) -> bytes:
        """A request for a chat that is streamed.

        Args:
            params: sampling parameters by llama-server's names.
            owner: of the model, as the list of models has it.
        """
        own = {**params, "stream_options": {"include_usage": True}}
        limit = own.pop("n_predict", None)
        if limit is not None:
            short = "max_tokens" in self.refused
            own["max_completion_tokens" if short else "max_tokens"] = limit
        # What is not in OpenAI's own API, where it would be refused, is sent only if it matters.
        if not own.get("ignore_eos"):
            own.pop("ignore_eos", None)
        elif "ignore_eos" in self.refused and limit is not None:
            own["min_tokens"] = limit
        if owner not in _KNOW_CACHE:
            own.pop("cache_prompt", None)
        for name in self.refused & own.keys():
            del own[name]
            self.sent_without.add(name)
        return msgspec.json.encode({**own, "model": model, "messages": messages, "stream": True})

    def learn(self, status: int, said: bytes, sent: bytes) -> bool:
        """Take the refusal of a request; whether it is worth asking again, in other words.

        Args:
            said: the body of the refusal.
            sent: the body that was refused.
        """
        if status not in (400, 422):
            return False
        text = said.decode("utf-8", "replace")
        fields = msgspec.json.decode(sent)
        for name in ("max_tokens", *_SPARE):
            if name in fields and name not in self.refused and re.search(rf"\b{name}\b", text):
                self.refused.add(name)
                return True
        return False

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know of it."""
        lost = self.sent_without
        if "min_tokens" in lost:
            lost = lost - {"ignore_eos"}
        elif "ignore_eos" in lost:
            return [_SPARE[name] for name in sorted(lost - {"ignore_eos"})] + [
                "the server refuses ignore_eos: min_tokens was sent in its place"
            ]
        return [_SPARE[name] for name in sorted(lost)]
