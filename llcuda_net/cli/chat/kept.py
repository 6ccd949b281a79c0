"""A conversation that the server keeps: the page shows it, and any terminal goes on with it.

A question becomes a response in the background of the conversation, as those of the page do; so it
goes on when this process is killed. The answer is read as any generation is.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from llcuda_net.cli.chat.api import ConversationApi
from llcuda_net.cli.chat.talk import Message
from llcuda_net.cli.common import DEFAULT_TOKENS
from llcuda_net.client.events import Result
from llcuda_net.errors import ConnectError, RequestError
from llcuda_net.sync import Client, Stream

#: What goes with a request in headers of HTTP.
_HEADERS = {
    "timeout": "x-llcuda-timeout",
    "level": "x-llcuda-level",
    "cache": "x-llcuda-cache",
    "priority": "x-llcuda-priority",
    "deadline": "x-llcuda-deadline",
}
#: What is not sent: a response in the background has no other.
_LEFT_OUT = ("on_disconnect", "key")
_RUNNING = ("queued", "in_progress")


class KeptTalk:
    """A conversation of the server.

    Args:
        api: its HTTP.
        arguments: what goes with every request, by the names of `Client.generate`.
        conversation: its id; None: the first question begins one.
        previous: the response or generation that the next question goes on from; None: from what
            was said last.
        last: the response that was said last; None: there is none.
        asked: its question.
    """

    def __init__(
        self,
        api: ConversationApi,
        arguments: dict[str, Any],
        *,
        conversation: str | None = None,
        previous: str | None = None,
        last: str | None = None,
        asked: list[Message] | None = None,
    ) -> None:
        self._api = api
        self._arguments = arguments
        self._conversation = conversation
        self._previous = previous
        self._last = last
        self._is_empty = conversation is None
        self._pending: list[Message] = []
        self.asked = asked or []
        self.again = conversation

    def __repr__(self) -> str:
        return f"<KeptTalk {self._conversation}>"

    def start(
        self, client: Client, asked: list[Message], system: str | None, *, instead: bool = False
    ) -> Stream:
        """Ask as the page does, and read the answer."""
        body, headers = request_of(self._arguments)
        if self._conversation is None:
            self._conversation = self._api.begin()
        body |= {
            "conversation": self._conversation,
            "background": True,
            "store": True,
            "input": [each for message in asked for each in items_of(message)],
        }
        if system is not None:
            body["instructions"] = system
        if instead and self._last is not None:
            body["instead_of"] = self._last
        elif self._previous is not None:
            body["previous_response_id"] = self._previous
        try:
            response = self._api.respond(body, headers)
        except RequestError:
            self._take_back()
            raise
        self._last = str(response["id"])
        self._previous, self._is_empty = None, False
        self.asked, self.again = asked, self._conversation
        return client.attach(self._last, splices=True)

    def ended(self, stream: Stream, said: Message) -> None:
        """The server has it."""

    def stopped(self, client: Client, stream: Stream | None) -> Result | None:
        """Cancel it; what came until then stays in the conversation."""
        if stream is not None:
            client.cancel(stream.id)
            with client.attach(stream.id, stream.received) as rest:
                for _ in rest:  # what came meanwhile; it is over at once
                    pass
            return rest.result
        if self._conversation is None:
            return None
        # Whether it has begun is not known: then it is what was said last, and runs.
        entry = newest(self._api, self._conversation)
        if entry is not None and entry["status"] in _RUNNING:
            self._last = str(entry["id"])
            self.again = self._conversation
            client.cancel(self._last)
        else:
            self._take_back()
        return None

    def document(self, form: str) -> bytes | None:
        """The active path, as the page exports it."""
        if self._conversation is None or self._is_empty:
            return None
        return self._api.download(f"/v1/conversations/{self._conversation}/export", format=form)

    def _take_back(self) -> None:
        """Forget a conversation that was made for a question that is not in it."""
        if not self._is_empty or self._conversation is None:
            return
        with suppress(ConnectError, RequestError):
            path = f"/v1/conversations/{self._conversation}"
            if self._api.get(path)["entries"] == 0:
                self._api.delete(path)
        self._conversation = None


def newest(
    api: ConversationApi, conversation: str, *, path: str | None = None
) -> dict[str, Any] | None:
    """What was said last in a conversation; None: nothing.

    Args:
        path: an answer, on the path through it; None: on the active path.

    Raises:
        ConnectError, RequestError: as `ConversationApi.get`.
    """
    where = f"/v1/conversations/{conversation}/responses"
    found = api.get(where, path=path or "active", limit="1", order="desc")["data"]
    return found[0] if found else None


def request_of(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers of a response, without its input, from what our protocol takes."""
    body: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for name, value in {"n_predict": DEFAULT_TOKENS, **arguments}.items():
        if name in _HEADERS:
            headers[_HEADERS[name]] = json.dumps(value) if value is True else str(value)
        elif name == "tools":
            body["tools"] = [{"type": "function", **tool["function"]} for tool in value]
        elif name == "tool_choice":
            body[name] = _choice(value)
        elif name == "reasoning_effort":
            body["reasoning"] = {"effort": value}
        elif name not in _LEFT_OUT:
            body[name] = value
    return body, headers


def items_of(message: Message) -> list[dict[str, Any]]:
    """A message of a chat as items of a response's input."""
    if message["role"] == "tool":
        output = {"call_id": message["tool_call_id"], "output": message["content"]}
        return [{"type": "function_call_output", **output}]
    content = message["content"]
    parts = content if isinstance(content, list) else [content]
    given = [_part(part) for part in parts]
    return [{"type": "message", "role": message["role"], "content": given}]


def messages_of(items: list[dict[str, Any]]) -> list[Message]:
    """Items of a response's input as messages of a chat; what cannot be asked again is left out."""
    found: list[Message] = []
    for item in items:
        if item["type"] == "function_call_output" and isinstance(item["output"], str):
            reply = {"tool_call_id": item["call_id"], "content": item["output"]}
            found.append({"role": "tool", **reply})
        elif item["type"] == "message" and item["role"] == "user":
            parts = [_part_back(part) for part in item.get("content") or ()]
            content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts
            found.append({"role": "user", "content": content})
    return found


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"]}
    return dict(part)


def _part_back(part: dict[str, Any]) -> Any:
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return part.get("text", "") if "text" in part else part


def _choice(choice: Any) -> Any:
    """A choice of tools as the API has it: the name of one, or its own shape."""
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        return {"type": "function", "name": choice}
    if isinstance(choice, dict) and isinstance(inner := choice.get("function"), dict):
        return {"type": "function", "name": inner.get("name")}
    return choice
