"""What a request inherits of the generation whose conversation it goes on with."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest
from llcuda_net.server.generations.previous import following
from llcuda_net.storage.records import Level, Result, TokenLog
from llcuda_protocol import Generate

_SYSTEM = {"role": "system", "content": "Be brief."}
_FIRST = {"role": "user", "content": "My name is Ada."}
_ANSWER = {"role": "assistant", "content": "Hello, Ada."}
_NEXT = {"role": "user", "content": "What is my name?"}
_TOOLS = [{"type": "function", "function": {"name": "add"}}]


def _earlier(**request: Any) -> Result:
    return Result(
        id="g1",
        state="done",
        created=1,
        finished=2,
        reason="stop",
        request={"prompt": None, "messages": [_SYSTEM, _FIRST], "params": {"seed": 1}, **request},
        log=TokenLog(["Hello, ", "Ada."], [1, 2]),
    )


def _asked(**given: Any) -> Generate:
    return Generate(1, 10, previous="g1", **given)


def test_the_messages_come_after_those_of_the_conversation() -> None:
    for request in (_asked(messages=[_NEXT]), _asked(prompt=_NEXT["content"])):
        found = following(request, _earlier())
        assert found.messages == [_SYSTEM, _FIRST, _ANSWER, _NEXT]
        assert found.prompt is None
        assert found.previous == "g1"


def test_what_was_begun_with_a_prompt_goes_on() -> None:
    found = following(_asked(messages=[_NEXT]), _earlier(prompt="My name is Ada.", messages=None))
    assert found.messages == [_FIRST, _ANSWER, _NEXT]


def test_a_system_message_takes_the_place_of_the_one_before() -> None:
    system = {"role": "system", "content": "Be long."}
    request = _asked(messages=[system, system, _NEXT])
    earlier = _earlier(messages=[_SYSTEM, _SYSTEM, _FIRST])
    assert following(request, earlier).messages == [system, system, _FIRST, _ANSWER, _NEXT]


def test_what_is_stored_stays_as_it_is() -> None:
    earlier = _earlier()
    following(_asked(messages=[_SYSTEM, _NEXT]), earlier)
    assert earlier.request["messages"] == [_SYSTEM, _FIRST]


def test_the_model_is_that_of_the_conversation_unless_it_is_named() -> None:
    earlier = _earlier(model="small")
    assert following(_asked(prompt="a"), earlier).model == "small"
    assert following(_asked(prompt="a", model="large"), earlier).model == "large"
    assert following(_asked(prompt="a"), _earlier()).model is None


def test_options_of_the_chat_are_inherited_one_by_one() -> None:
    before = {"tools": _TOOLS, "tool_choice": "required", "reasoning_effort": "low"}
    earlier = _earlier(chat=before)
    assert following(_asked(prompt="a"), earlier).chat == {
        "tools": _TOOLS,
        "reasoning_effort": "low",
    }
    given = {"reasoning_effort": "high", "tool_choice": "none"}
    assert following(_asked(messages=[_NEXT], chat=given), earlier).chat == {
        "tools": _TOOLS,
        **given,
    }
    assert following(_asked(messages=[_NEXT], chat={"tools": []}), earlier).chat == {
        "tools": [],
        "reasoning_effort": "low",
    }
    assert following(_asked(prompt="a"), _earlier()).chat is None
    assert following(_asked(prompt="a"), _earlier(chat={"tool_choice": "none"})).chat is None


def test_parameters_and_policies_are_not_inherited() -> None:
    found = following(_asked(prompt="a", timeout=5.0), _earlier(timeout=9.0, priority="low"))
    assert (found.params, found.timeout, found.priority) == ({}, 5.0, None)


def test_what_was_not_to_be_stored_is_not_stored_later() -> None:
    earlier = _earlier()
    assert earlier.level is Level.DISK
    assert following(_asked(prompt="a"), earlier).level is None
    assert not following(_asked(prompt="a"), earlier).transient
    assert following(_asked(prompt="a", transient=True), earlier).transient
    earlier.transient = True
    assert following(_asked(prompt="a"), earlier).transient
    earlier.level = Level.MEMORY
    assert following(_asked(prompt="a"), earlier).level == "memory"
    assert following(_asked(prompt="a", level="disk"), earlier).level == "disk"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give messages or a prompt"),
        ({"messages": []}, "give messages or a prompt"),
        ({"messages": [_SYSTEM]}, "give messages or a prompt"),
        ({"prompt": "a", "messages": [_NEXT]}, "one of the two"),
        ({"prompt": [1, 2]}, "not with token ids"),
    ],
)
def test_it_must_say_something(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        following(_asked(**given), _earlier())


def test_token_ids_are_no_conversation() -> None:
    with pytest.raises(InvalidRequest, match="token ids"):
        following(_asked(prompt="a"), _earlier(prompt=[1, 2], messages=None))
