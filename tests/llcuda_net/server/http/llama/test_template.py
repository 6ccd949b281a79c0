"""POST /apply-template: the prompt of a chat, of which nothing is generated."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send

MESSAGES = [{"role": "user", "content": "hello"}]


class Notes(FakeUpstream):
    """Notes what it is to render."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rendered: list[tuple[Any, Any]] = []

    async def render(
        self, messages: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> str:
        self.rendered.append((messages, options))
        return await super().render(messages)


async def _apply(body: Any, upstream: FakeUpstream | None = None) -> Any:
    async with serving(upstream or FakeUpstream()) as (_, listener):
        reply = await send(listener, "POST", "/apply-template", body)
        return reply.status, await reply.json(), reply.headers


async def test_the_prompt_of_messages(autojump_clock: object) -> None:
    notes = Notes()
    status, answer, headers = await _apply(
        {"messages": MESSAGES, "temperature": 0.5, "stream": True, "user": "me"}, notes
    )
    assert (status, answer) == (200, {"prompt": "user: hello"})
    assert headers["x-llcuda-ignored"] == "user"
    assert notes.rendered == [(MESSAGES, None)]
    assert not notes.calls  # nothing was generated


async def test_parts_of_text_are_one_text(autojump_clock: object) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    _, answer, _ = await _apply({"messages": [{"role": "developer", "content": parts}]})
    assert answer == {"prompt": "system: a\nb"}


async def test_what_a_template_takes_beside_messages(autojump_clock: object) -> None:
    notes = Notes()
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"messages": MESSAGES, "tools": [tool], "chat_template_kwargs": {"x": 1}}
    assert (await _apply(body, notes))[0] == 200
    assert notes.rendered[0][1] == {"tools": [tool], "chat_template_kwargs": {"x": 1}}


@pytest.mark.parametrize(
    ("value", "options"),
    [(True, None), (None, None), (False, {"add_generation_prompt": False})],
)
async def test_without_the_beginning_of_an_answer(
    value: bool | None, options: Any, autojump_clock: object
) -> None:
    notes = Notes()
    assert (await _apply({"messages": MESSAGES, "add_generation_prompt": value}, notes))[0] == 200
    assert notes.rendered == [(MESSAGES, options)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": MESSAGES, "add_generation_prompt": 1}, "add_generation_prompt"),
        ({"messages": MESSAGES, "prompt": "a"}, "prompt"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ],
)
async def test_what_is_refused(body: Any, param: str, autojump_clock: object) -> None:
    status, answer, _ = await _apply(body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_what_the_model_cannot_take(autojump_clock: object) -> None:
    status, answer, _ = await _apply({"messages": MESSAGES}, FakeUpstream(template=False))
    assert (status, answer["error"]["code"]) == (400, "unsupported")
    assert "no chat template" in answer["error"]["message"]
    url = {"url": "data:image/png;base64,iVBORw0KGgo="}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    status, answer, _ = await _apply({"messages": image})
    assert (status, answer["error"]["code"]) == (400, "unsupported")
