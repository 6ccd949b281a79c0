"""A llama-server whose chats are scripted, for answers that no small model gives when asked.

It runs in a thread of this process: see ChatServer, and chunks.py for the form of what it says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.chat_server import ChatServer, in_thread
from tests.support.upstream.chunks import DONE, chunk, more_of, usage
from tools.synthetic.pages import props

#: A template that has tools, and does not think by itself.
TEMPLATE = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"


def text(content: str) -> dict[str, Any]:
    """A part of an answer: text."""
    return {"content": content}


def thought(content: str) -> dict[str, Any]:
    """A part of an answer: reasoning."""
    return {"reasoning_content": content}


def call(index: int, name: str, id_: str) -> dict[str, Any]:
    """A part of an answer: a tool call begins."""
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": index, "id": id_, "type": "function", "function": function}]}


def arguments(index: int, content: str) -> dict[str, Any]:
    """A part of an answer: more arguments of a tool call."""
    return {"tool_calls": more_of(index, content)}


@dataclass
class ScriptedChat:
    """What it answers, and what it was asked.

    Attributes:
        answers: the parts of each answer in turn, and why it ends; the last one is repeated.
        asked: the bodies of the chats.
        gate: answers wait for it behind their first part; open at first.
    """

    answers: list[tuple[Sequence[dict[str, Any]], str]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    def script(self, _: dict[str, Any]) -> list[bytes]:
        """The events of the next answer."""
        parts, reason = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        said = [chunk(count, **part) for count, part in enumerate(parts, 1)]
        begin, end = chunk(0, role="assistant", content=None), chunk(len(parts), reason)
        return [begin, *said, end, usage(len(parts)), DONE]


@contextmanager
def scripted_chat(template: str = TEMPLATE) -> Iterator[ScriptedChat]:
    """One that listens on loopback until the block ends, with a model of this chat template."""
    chat = ScriptedChat()
    modalities = {"vision": True, "video": False, "audio": True}
    says = props(2, 4096, "scripted") | {"chat_template": template, "modalities": modalities}
    server = ChatServer(script=chat.script, props=says, asked=chat.asked, gate=chat.gate)
    with in_thread(server):
        chat.url = server.url
        try:
            yield chat
        finally:
            chat.gate.set()
