"""Answers in the form of OpenAI's API: chat completions and completions, streamed or whole.

Only the form differs from /completion: which tokens are said, and when, does not.
"""

from __future__ import annotations

import time
from typing import Any

from . import pages
from .answer import Answer, RequestError
from .written import WrittenAnswer

#: Tokens of an answer where the request does not say how many.
DEFAULT_TOKENS = 64


def asked(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request by OpenAI's API as those that /completion has.

    Raises:
        RequestError: it has no messages, or no prompt that is text.
    """
    if path == "/completion":
        return fields
    if path == "/v1/chat/completions":
        prompt = pages.apply_template([_flat(message) for message in _list(fields, "messages")])
    else:
        prompt = fields.get("prompt", "")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
    if not isinstance(prompt, str):
        raise RequestError(400, '"prompt" must be one string')
    tokens = fields.get("max_completion_tokens", fields.get("max_tokens"))
    stop = fields.get("stop") or []
    return {
        **{name: fields[name] for name in ("stream", "stream_options") if name in fields},
        **{name: fields[name] for name in ("temperature", "top_p", "seed") if fields.get(name)},
        "fault": fields.get("fault"),
        "prompt": prompt,
        "n_predict": DEFAULT_TOKENS if tokens is None else tokens,
        "stop": [stop] if isinstance(stop, str) else stop,
    }


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    found = fields.get(name)
    if not isinstance(found, list) or not found:
        raise RequestError(400, f'"{name}" must be an array that is not empty')
    return found


def _flat(message: Any) -> dict[str, Any]:
    """A message whose content is one text."""
    if not isinstance(message, dict):
        raise RequestError(400, '"messages" must be objects')
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return {"role": str(message.get("role")), "content": str(content)}


class ChatForm(Answer):
    """The form of a chat completion; what is said comes from the class beside it."""

    name, piece, whole = "chatcmpl", "chat.completion.chunk", "chat.completion"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plain = False  # each event goes through _chunk
        self._created = int(time.time())

    def _choice(self, content: str | None, streamed: bool) -> dict[str, Any]:
        if not streamed:
            return {"message": {"role": "assistant", "content": content}}
        first = {"role": "assistant"} if self.sent == self._first_event() else {}
        return {"delta": {} if content is None else {**first, "content": content}}

    def _first_event(self) -> int:
        return min(self.language.group, self.total)

    def _event(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{self.name}-{self.started_ns}",
            "object": kind,
            "created": self._created,
            "model": self.language.model,
            "choices": choices,
        }

    def _chunk(self, event: dict[str, Any]) -> bytes:
        choice = {"index": 0, **self._choice(event["content"], True), "finish_reason": None}
        return super()._chunk(self._event(self.piece, [choice]))

    def _finish(self) -> str:
        return "length" if self.stop_type == "limit" else "stop"

    def _usage(self) -> dict[str, Any]:
        read, said = len(self.ids), self.sent
        return {
            "prompt_tokens": read,
            "completion_tokens": said,
            "total_tokens": read + said,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def ending(self) -> bytes:
        """See Answer."""
        choice = {"index": 0, **self._choice(None, True), "finish_reason": self._finish()}
        out = super()._chunk(self._event(self.piece, [choice]))
        if (self.request.get("stream_options") or {}).get("include_usage"):
            out += super()._chunk({**self._event(self.piece, []), "usage": self._usage()})
        return out + pages.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def summary(self, content: str) -> dict[str, Any]:
        """See Answer."""
        choice = {"index": 0, **self._choice(content, False), "finish_reason": self._finish()}
        return {**self._event(self.whole, [choice]), "usage": self._usage()}


class TextForm(ChatForm):
    """The form of a completion."""

    name, piece, whole = "cmpl", "text_completion", "text_completion"

    def _choice(self, content: str | None, streamed: bool) -> dict[str, Any]:
        return {"text": content or ""}


class ChatAnswer(ChatForm, Answer):
    """A chat completion in the made-up language."""


class WrittenChat(ChatForm, WrittenAnswer):
    """A chat completion of a written text."""


class TextAnswer(TextForm, Answer):
    """A completion in the made-up language."""


class WrittenText(TextForm, WrittenAnswer):
    """A completion of a written text."""


#: Where answers are asked for: the class of what is made up, and of what is written.
KINDS: dict[str, tuple[type[Answer], type[Answer]]] = {
    "/completion": (Answer, WrittenAnswer),
    "/v1/chat/completions": (ChatAnswer, WrittenChat),
    "/v1/completions": (TextAnswer, WrittenText),
}
