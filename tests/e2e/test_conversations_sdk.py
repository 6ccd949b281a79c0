"""Conversations with OpenAI's SDK, against real servers, also over kill -9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.test_openai_sdk import MODEL, client_of
from tests.support.processes import RunningServer, running_server

SAID: Any = {"type": "message", "role": "user", "content": "What is a slot?"}


def test_a_conversation_from_its_beginning_to_its_end(demo_server: RunningServer) -> None:
    with client_of(demo_server) as client:
        made = client.conversations.create(items=[SAID], metadata={"topic": "slots"})
        assert made.metadata == {"topic": "slots"}
        (item,) = client.conversations.items.list(made.id)
        assert item.type == "message"
        assert client.conversations.items.retrieve(item.id, conversation_id=made.id) == item
        answer = client.responses.create(
            model=MODEL, conversation=made.id, input="And a token?", max_output_tokens=8
        )
        assert answer.conversation is not None
        assert answer.conversation.id == made.id
        added = client.conversations.items.create(made.id, items=[SAID])
        assert [one.type for one in added.data] == ["message"]
        listed = list(client.conversations.items.list(made.id, order="asc", limit=2))  # in pages
        assert len(listed) == 4
        assert [getattr(one, "role", None) for one in listed] == [
            *("user", "user"),
            *("assistant", "user"),
        ]
        last = listed[-1].id
        assert last is not None
        client.conversations.items.delete(last, conversation_id=made.id)
        assert len(list(client.conversations.items.list(made.id))) == 3
        changed = client.conversations.update(made.id, metadata={"topic": "tokens"})
        assert client.conversations.retrieve(made.id) == changed
        assert client.conversations.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError) as caught:
            client.conversations.retrieve(made.id)
        assert caught.value.code == "conversation_not_found"


def test_it_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path))
    with running_server(*options) as server, client_of(server) as client:
        made = client.conversations.create()
        begun = client.responses.create(
            model=MODEL,
            conversation=made.id,
            input="What is a slot?",
            background=True,
            max_output_tokens=64,
            temperature=0,
        )
        server.process.kill()
        server.process.wait()
    with running_server(*options) as server, client_of(server) as client:
        with client.responses.stream(response_id=begun.id) as stream:
            whole = stream.get_final_response()
        assert whole.status in ("completed", "incomplete")
        client.responses.create(
            model=MODEL, conversation=made.id, input="And a token?", max_output_tokens=4
        )
        listed = list(client.conversations.items.list(made.id, order="asc"))
        texts = [one.content[0].text for one in listed if one.type == "message"]  # type: ignore[union-attr]
        assert texts[:3] == ["What is a slot?", whole.output_text, "And a token?"]
        assert len(listed) == 4
