"""One /completion under way: what it says, token by token, as the bytes llama-server would send."""

from __future__ import annotations

import random
import time
from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from typing import Any

from . import pages
from .faults import Fault
from .tokens import VOCABULARY, WORDS, detokenise, following, piece, tokenise, whole_text

#: Digits of the emission time that --stamp puts into a token's content, after an "@".
STAMP_DIGITS = 18


class RequestError(Exception):
    """The request is refused with this HTTP status and reply."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.reply = pages.reply(pages.error_body(status, message, **more), status)


@dataclass(frozen=True, slots=True)
class Language:
    """How tokens are made: `context` tokens a slot, `group` tokens an event, stamped or not.

    Attributes:
        model: the name that it goes by; what is said does not follow from it.
        words: of a text that is said instead; see written.py.
    """

    context: int = 4096
    seed: int = 0
    group: int = 1
    stamp: bool = False
    model: str = pages.MODEL
    words: tuple[str, ...] = ()


class Answer:
    """What is said in answer to one request.

    Args:
        request: the JSON of the request.
        ids: its prompt.
        fault: what goes wrong, or None.

    Raises:
        RequestError: llama-server would refuse the request.
    """

    def __init__(
        self, request: dict[str, Any], ids: list[int], language: Language, fault: Fault | None
    ) -> None:
        self.request = request
        self.ids = ids
        self.language = language
        self.fault = fault
        self.streamed = bool(request.get("stream", False))
        self.slot = -1
        self.cached = 0  # tokens of the prompt that the slot held already
        self.sent = 0  # tokens
        self.started_ns = time.monotonic_ns()
        self.first_ns = 0  # when the first token was emitted
        self.due_ns = 0  # when the next is, where tokens are spread
        self.stop_type, self.stopping_word, self.truncated = "limit", "", False
        self._stops: list[str] = [] if language.stamp else list(request.get("stop") or [])
        self._cut: int | None = None  # characters to say, where a stop string ends them
        self._split = 0
        self._seed = language.seed
        # One token with its log-probabilities tells a model: that stays what it is.
        if fault is not None and fault.kind == "vary" and request.get("n_predict") != 1:
            self._seed = random.getrandbits(32)
        if fault is not None:
            self._split = fault.after if fault.kind == "split" else fault.split
        self.total = self._length()
        self._next = following(ids, self._seed, self._split)
        self._held = b""  # of tokens that were made and not said
        self._said = 0  # characters
        self._with_ids = bool(request.get("return_tokens", False))
        self._probabilities = int(request.get("n_probs", 0))
        self._forms = fault is not None and fault.kind == "forms"
        self._plain = not (
            self._probabilities or self._stops or self._split or self._forms or language.group > 1
        )

    def _length(self) -> int:
        """How many tokens there will be, and why they end."""
        request, context = self.request, self.language.context
        for name in ("temperature", "top_k", "top_p", "min_p", "seed", "n_predict", "n_probs"):
            value = request.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                names = {"str": "string", "list": "array", "dict": "object", "bool": "boolean"}
                kind = names.get(type(value).__name__, "null")
                raise RequestError(
                    400,
                    f"Field '{name}': [json.exception.type_error.302] type must be number, "
                    f"but is {kind}",
                )
        if len(self.ids) >= context:
            raise RequestError(
                400,
                f"request ({len(self.ids)} tokens) exceeds the available context size "
                f"({context} tokens), try increasing it",
                type="exceed_context_size_error",
                n_prompt_tokens=len(self.ids),
                n_ctx=context,
            )
        room = context - len(self.ids)
        if self.fault is not None and self.fault.kind == "overrun":
            return 1 << 40
        total = int(request.get("n_predict", -1))
        if total < 0 or total > room:
            total, self.truncated = room, True
        if self.fault is not None and self.fault.kind == "eos" and self.fault.after <= total:
            total, self.stop_type, self.truncated = self.fault.after, "eos", False
        return self._until_stop(total)

    def _until_stop(self, total: int) -> int:
        if not self._stops:
            return total
        text = self.text(total)
        found = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if not found:
            return total
        self._cut, self.stopping_word = min(found)
        self.stop_type, self.truncated = "word", False
        need, ids = self._cut + len(self.stopping_word), self.tokens(total)
        return bisect_left(range(total), need, key=lambda n: len(whole_text(ids[:n])))

    def tokens(self, count: int) -> list[int]:
        """The ids of the first so many tokens."""
        return list(islice(following(self.ids, self._seed, self._split), count))

    def text(self, tokens: int) -> str:
        """The text of the first so many tokens, a stop string left out."""
        return whole_text(self.tokens(tokens))[: self._cut]

    @property
    def done(self) -> bool:
        """Whether every token has been rendered."""
        return self.sent >= self.total

    def render(self, now_ns: int) -> bytes:
        """The chunk of the next event, emitted now; b"" where a character is not whole."""
        if self.first_ns == 0:
            self.first_ns = now_ns
        if not self._plain:
            return self._render_any(now_ns)
        # The path of every token in the benchmark: plain formatting, no JSON encoder.
        word = next(self._next) - WORDS
        self.sent += 1
        event = (
            b'data: {"index":0,"content":" %05x%b","tokens":[%b],"stop":false,"id_slot":-1,'
            b'"tokens_predicted":%d,"tokens_evaluated":%d}\n\n'
            % (
                word,
                b"@%0*d" % (STAMP_DIGITS, now_ns) if self.language.stamp else b"",
                b"%d" % (WORDS + word) if self._with_ids else b"",
                self.sent,
                len(self.ids),
            )
        )
        return b"%x\r\n%b\r\n" % (len(event), event)

    def _render_any(self, now_ns: int) -> bytes:
        ids = list(islice(self._next, min(self.language.group, self.total - self.sent)))
        self.sent += len(ids)
        self._held += b"".join(map(piece, ids))
        try:
            content = self._held.decode()
        except UnicodeDecodeError:
            return b""  # of a part of a character llama-server says nothing
        if self._cut is not None and self.done:
            content = content[: self._cut - self._said]
        elif any(content.endswith(stop[:n]) for stop in self._stops for n in range(1, len(stop))):
            content = ""  # it may become a stop string: llama-server tells the id only
        else:
            self._held = b""
        self._said += len(content)
        if self.language.stamp:
            content += f"@{now_ns:0{STAMP_DIGITS}d}"
        event: dict[str, Any] = {
            "index": 0,
            "content": content,
            "tokens": ids if self._with_ids else [],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": self.sent,
            "tokens_evaluated": len(self.ids),
        }
        if self._probabilities:
            event["completion_probabilities"] = [
                entry
                for i in ids
                for entry in pages.probabilities(
                    i, content if len(ids) == 1 else detokenise([i]), self._probabilities
                )
            ]
        return self._chunk(event)

    def ending(self) -> bytes:
        """The final event and the end of the body."""
        return self._chunk(self.summary("")) + b"0\r\n\r\n"

    def _chunk(self, event: dict[str, Any]) -> bytes:
        data = b"data: " + pages.dumps(event) + b"\n\n"
        return pages.chunk(pages.other_form(data) if self._forms else data)

    def summary(self, content: str) -> dict[str, Any]:
        """What the final event says, or the whole reply where it is not streamed."""
        now = time.monotonic_ns()
        first = self.first_ns or now
        ids: list[int] = []
        if self._with_ids and not self.streamed:
            ids = self.tokens(self.total)
        final = pages.final(
            self.request,
            model=self.language.model,
            content=content,
            tokens=ids,
            slot=self.slot,
            prompt=detokenise(self.ids),
            prompt_tokens=len(self.ids),
            cached=self.cached,
            predicted=self.sent,
            stop_type=self.stop_type,
            stopping_word=self.stopping_word,
            truncated=self.truncated,
            prompt_ms=(first - self.started_ns) / 1e6,
            predicted_ms=(now - first) / 1e6,
        )
        wanted = self.request.get("response_fields")
        return {name: final[name] for name in wanted if name in final} if wanted else final


def prompt_ids(value: object) -> list[int]:
    """The token ids of a request's prompt: text, ids, or a list of both.

    Raises:
        RequestError: it is none of these.
    """
    if isinstance(value, str):
        return tokenise(value)
    if isinstance(value, list):
        ids: list[int] = []
        for item in value:
            if isinstance(item, str):
                ids += tokenise(item)
            elif isinstance(item, int) and 0 <= item < VOCABULARY:
                ids.append(item)
            else:
                break
        else:
            return ids
    raise RequestError(400, '"prompt" must be a string or a list of token ids')
