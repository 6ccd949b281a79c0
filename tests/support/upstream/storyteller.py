"""A llama-server that answers each question as a test has told it, and waits where the test says.

So a test is in the middle of an answer for as long as it likes, however slow the machine is. All
its chats come as chats (its template thinks by itself), and it goes on behind an answer that was
cut off, as a real one does, so that an answer survives its server.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.chat_server import ChatServer, Refusal, Script, in_thread
from tests.support.upstream.chunks import DONE, begin_call, chunk, more_of, usage
from tools.synthetic.pages import props

#: A template that has tools, and thinks by itself.
TEMPLATE = (
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking %}<think>{% endif %}"
)


@dataclass(frozen=True)
class Word:
    """A token of text, how likely it was, and the likeliest other tokens with theirs."""

    text: str
    probability: float = 0.98
    others: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Thought:
    """A token of reasoning."""

    text: str


@dataclass(frozen=True)
class Call:
    """A tool call, whole."""

    name: str
    arguments: str


#: A text is one token. A Hold is where the answer waits until it is set.
Hold = threading.Event
Part = str | Word | Thought | Call | Hold


@dataclass(frozen=True)
class Answer:
    """What is said, and why it ends."""

    parts: Sequence[Part]
    reason: str = "stop"

    @property
    def text(self) -> str:
        return "".join(_text(part) for part in self.parts)


def words(text: str) -> list[str]:
    """A text as tokens: each word with the white space before it."""
    return re.findall(r"\s*\S+|\s+\Z", text)


def pieces(text: str, length: int) -> list[str]:
    """A text as tokens of so many characters."""
    return [text[at : at + length] for at in range(0, len(text), length)]


@dataclass
class Storyteller:
    """What it answers, and what it was asked.

    Attributes:
        asked: the bodies of the chats.
        otherwise: the answer to a question that it was told nothing about.
    """

    asked: list[dict[str, Any]] = field(default_factory=list)
    otherwise: Answer = Answer(["I ", "do ", "not ", "know."])
    url: str = ""
    _told: dict[str, list[Answer | Refusal]] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)
    _given: dict[str, list[Answer]] = field(default_factory=dict)
    _holds: list[Hold] = field(default_factory=list)

    def tell(self, question: str, *parts: Part, reason: str = "stop") -> Answer:
        """What it answers when a question is asked once more; the last answer is repeated."""
        answer = Answer(parts, reason)
        self._told.setdefault(question, []).append(answer)
        self._holds += [part for part in parts if isinstance(part, Hold)]
        return answer

    def refuse(self, question: str, status: int, message: str) -> None:
        """Answer a question with an error."""
        body = json.dumps({"error": {"code": status, "message": message}}).encode()
        self._told.setdefault(question, []).append(Refusal(status, body))

    def release_all(self) -> None:
        """Let go what waits."""
        for hold in self._holds:
            hold.set()

    def script(self, body: dict[str, Any]) -> Script | Refusal:
        """The events of an answer; of one that was begun, those behind its beginning."""
        messages = body["messages"]
        begun = messages[-1] if messages[-1]["role"] == "assistant" else {}
        asked = [one for one in messages if one["role"] == "user"]
        found = self._find(_content(asked[-1]) if asked else "", begun)
        if isinstance(found, Refusal):
            return found
        thought, said = begun.get("reasoning_content") or "", begun.get("content") or ""
        scored = bool(body.get("logprobs") or body.get("n_probs"))
        events: list[bytes | Hold] = [chunk(0, role="assistant", content=None)]
        tokens = calls = 0
        for part in found.parts:
            if isinstance(part, Hold):
                events.append(part)
            elif isinstance(part, Call):
                tokens += 1
                delta = begin_call(calls, part.name, "", "call_")
                events.append(chunk(tokens, tool_calls=delta))
                events.append(chunk(tokens, tool_calls=more_of(calls, part.arguments)))
                calls += 1
            elif isinstance(part, Thought):
                new, thought = part.text[len(thought) :], thought[len(part.text) :]
                if new:
                    tokens += 1
                    events.append(chunk(tokens, reasoning_content=new))
            else:
                new, said = _text(part)[len(said) :], said[len(_text(part)) :]
                if new:
                    tokens += 1
                    scores = [_scores(part)] if scored else None
                    events.append(chunk(tokens, content=new, logprobs=scores))
        reason = "tool_calls" if calls and found.reason == "stop" else found.reason
        return [*events, chunk(tokens, reason), usage(tokens), DONE]

    def _find(self, question: str, begun: dict[str, Any]) -> Answer | Refusal:
        told = self._told.get(question)
        if told is None:
            return self.otherwise
        if begun:
            said = begun.get("content") or ""
            for one in self._given.get(question, []):
                if one.text.startswith(said):
                    return one
        asked = self._times.get(question, 0)
        self._times[question] = asked + 1
        found = told[min(asked, len(told) - 1)]
        if isinstance(found, Answer):
            self._given.setdefault(question, []).append(found)
        return found


def _text(part: Part) -> str:
    if isinstance(part, str):
        return part
    return part.text if isinstance(part, Word) else ""


def _content(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _scores(part: str | Word) -> dict[str, Any]:
    word = Word(part) if isinstance(part, str) else part
    chosen = _token(word.text, word.probability)
    return {**chosen, "top_logprobs": [chosen, *(_token(*other) for other in word.others)]}


def _token(text: str, probability: float) -> dict[str, Any]:
    data = text.encode("utf-8", "surrogatepass")
    ident = int.from_bytes(data[:3], "big")
    return {"id": ident, "token": text, "bytes": list(data), "logprob": math.log(probability)}


@contextmanager
def storyteller(
    model: str = "storyteller", slots: int = 4, pause: float = 0.0
) -> Iterator[Storyteller]:
    """One that listens on loopback until the block ends.

    Args:
        model: its name.
        slots: how many answers it gives at once.
        pause: seconds between two tokens.
    """
    teller = Storyteller()
    modalities = {"vision": True, "video": False, "audio": True}
    says = props(slots, 1 << 20, model) | {"chat_template": TEMPLATE, "modalities": modalities}
    server = ChatServer(script=teller.script, props=says, asked=teller.asked, pause=pause)
    with in_thread(server):
        teller.url = server.url
        try:
            yield teller
        finally:
            teller.release_all()
