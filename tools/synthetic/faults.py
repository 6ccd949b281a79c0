"""What can go wrong on purpose, and the short text that asks for it: `KIND[:K][*TIMES]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

#: Every kind with what it does. K counts tokens and is 0 where it is left out.
KINDS: dict[str, str] = {
    "die": "after K tokens, close the connection",
    "reset": "after K tokens, reset the connection (RST)",
    "cut": "after K tokens, send half an event, then close",
    "stall": "after K tokens, send nothing more and hold the connection",
    "hold": "after K tokens, send nothing until it is released (not with --rate 0)",
    "eos": "end well after K tokens, by end of text",
    "no-final": "after K tokens, end the body well but without the final event",
    "error-event": "after K tokens, an event that carries an error, then the end",
    "not-json": "after K tokens, an event that is not JSON",
    "wrong-types": "after K tokens, an event whose fields have the wrong types",
    "bad-chunk": "after K tokens, a chunk size that is not hexadecimal",
    "huge-line": "after K tokens, a line that never ends",
    "http": "answer with HTTP status K, and llama-server's error body",
    "busy": "answer with status 429 and Retry-After: K",
    "loading": "answer with status 503 and Retry-After: K",
    "json-error": "answer with status 200 and an error as JSON, of the code K",
    "gzip": "answer with status 200 and a body that is compressed, and unpacks without an end",
    "endless-body": "answer with status 200 and a body of JSON that never ends",
    "endless-interim": "answer with status 102, without an end",
    "not-http": "answer with bytes that are not HTTP",
    "endless-headers": "answer with headers that never end",
    "close": "close before the headers",
    "stall-headers": "hold the connection and never answer",
    "dribble": "answer rightly, one byte at a time",
    "interim": "answer rightly, after answers with status 100 and 103",
    "forms": "answer rightly, in other forms that the standard of event streams has",
    "overrun": "make tokens without an end, whatever n_predict says",
    "vary": "no fault: other tokens at each request for more than one, whatever the prompt",
    "split": "no fault: of K tokens about one begins a character of four, told with the last",
}

#: Kinds that strike before anything of a proper answer was sent.
BEFORE_HEADERS = frozenset(
    {
        "http",
        "busy",
        "loading",
        "json-error",
        "gzip",
        "endless-body",
        "endless-interim",
        "not-http",
        "endless-headers",
        "close",
        "stall-headers",
    }
)
#: Kinds that leave the tokens as they are, or make more of them.
HARMLESS = frozenset({"hold", "eos", "dribble", "vary", "split", "interim", "forms", "overrun"})

_SPEC = re.compile(r"([a-z-]+)(?::(\d{1,9}))?(?:\*(\d{1,9}))?")
_IN_PROMPT = re.compile(r"\[\[([^\[\]]{1,64})\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: after how many tokens it strikes, and how many requests it hits (None: all).

    Attributes:
        split: the K of [[split:K]] in the prompt, which asks for text and not for a fault.
    """

    kind: str
    after: int = 0
    times: int | None = None
    split: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault from its short text.

        Raises:
            ValueError: the text names none.
        """
        match = _SPEC.fullmatch(text)
        if match is None or match[1] not in KINDS:
            raise ValueError(f"{text!r} is no fault: KIND[:K][*TIMES], KIND one of {list(KINDS)}")
        after = int(match[2] or (500 if match[1] == "http" else 0))
        return cls(match[1], after, int(match[3]) if match[3] else None)


def in_prompt(prompt: str) -> Fault | None:
    """The fault that a prompt asks for as [[FAULT]].

    Raises:
        ValueError: the brackets hold something that is no fault.
    """
    found = _IN_PROMPT.search(prompt)
    return None if found is None else Fault.parse(found[1])


class Faults:
    """Chooses the fault of each request, and remembers how often each has struck."""

    def __init__(self, default: str | None = None) -> None:
        self.default = default
        self._struck: dict[str, int] = {}

    def set(self, default: str | None) -> None:
        """Another default from now on, which has hit nobody yet."""
        self.default = default
        if default is not None:
            self._struck.pop(default, None)

    def choose(self, field: object = None, prompt: str = "") -> Fault | None:
        """The request's fault: of its own field, else in its prompt as [[FAULT]], else the default.

        A prompt's [[split:K]] is no fault, and does not save it from the default.

        Raises:
            ValueError: the field or the brackets hold something that is no fault.
        """
        found = _IN_PROMPT.search(prompt)
        own = in_prompt(prompt)
        split = own.after if own is not None and own.kind == "split" else 0
        text = self.default
        if found is not None and not (split and text is not None):
            text = found[1]
        if field is not None:
            text = str(field)
        if text is None:
            return None
        fault = Fault.parse(text)
        if fault.times is not None:
            if self._struck.get(text, 0) >= fault.times:
                return own if split else None
            self._struck[text] = self._struck.get(text, 0) + 1
        return replace(fault, split=split)
