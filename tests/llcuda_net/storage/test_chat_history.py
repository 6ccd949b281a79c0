"""From a log to the message of the assistant, and to what a conversation goes on with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import InvalidRequest
from llcuda_net.storage.channels import Switch, contents
from llcuda_net.storage.chat_history import asked, history, is_cut, said
from llcuda_net.storage.records import Result, TokenLog

_SWITCHES = [
    Switch(0, "reasoning"),
    Switch(2, "text"),
    Switch(3, "tool_call", 0, "c0", "add"),
    Switch(5, "tool_call", 1, "c1", "add"),
]
_PIECES = ["hm", "m", "Let me see. ", "", '{"a":1}', '{"a":', "2}"]
_QUESTION = [{"role": "user", "content": "1 + 2?"}]


def _call(id_: str, arguments: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": "add", "arguments": arguments}}


def _result(**given: Any) -> Result:
    values: dict[str, Any] = {
        "id": "g1",
        "state": "done",
        "created": 1,
        "finished": 2,
        "reason": "stop",
        "request": {"prompt": None, "messages": _QUESTION},
        "log": TokenLog(["It is ", "3."], [1, 2]),
    }
    return Result(**values | given)


def test_text_alone_is_a_plain_message() -> None:
    assert said(["a", "b"], []).message == {"role": "assistant", "content": "ab"}
    assert said([], []).message == {"role": "assistant", "content": ""}


def test_an_answer_with_all_channels() -> None:
    answer = said(_PIECES, _SWITCHES)
    assert answer.message == {
        "role": "assistant",
        "content": "Let me see. ",
        "reasoning_content": "hmm",
        "tool_calls": [_call("c0", '{"a":1}'), _call("c1", '{"a":2}')],
    }


def test_calls_without_text_have_no_content() -> None:
    message = said(["{}"], [Switch(0, "tool_call", 0, "c0", "add")]).message
    assert message == {"role": "assistant", "content": None, "tool_calls": [_call("c0", "{}")]}


def test_a_thought_without_an_answer_keeps_its_empty_content() -> None:
    message = said(["hm"], [Switch(0, "reasoning")]).message
    assert message == {"role": "assistant", "content": "", "reasoning_content": "hm"}


def test_the_call_in_whose_midst_a_log_ends_is_left_out() -> None:
    assert said(_PIECES[:6], _SWITCHES, cut=True).tool_calls == [_call("c0", '{"a":1}')]
    assert said(_PIECES[:5], _SWITCHES, cut=True).tool_calls == []
    assert said(_PIECES[:6], _SWITCHES).tool_calls[1] == _call("c1", '{"a":')


def test_text_is_not_left_out_where_a_log_ends() -> None:
    assert said(["a"], [], cut=True).text == "a"
    assert said([], [], cut=True).text == ""


@given(st.integers(0, len(_PIECES)), st.booleans())
def test_nothing_is_made_up(count: int, cut: bool) -> None:
    pieces = _PIECES[:count]
    answer = said(pieces, _SWITCHES, cut=cut)
    found = "".join(call["function"]["arguments"] for call in answer.tool_calls)
    every = "".join(text for _, text in contents(pieces, _SWITCHES))
    assert every.startswith(answer.reasoning + answer.text + found)
    if not cut:
        assert every == answer.reasoning + answer.text + found


@pytest.mark.parametrize(
    ("state", "reason", "stop", "cut"),
    [
        ("done", "stop", None, False),
        ("done", "tool_calls", None, False),
        ("done", "length", None, True),
        ("done", "stop", "\n", True),
        ("cancelled", "", None, True),
        ("interrupted", "", None, True),
        ("failed", "", None, True),
    ],
)
def test_what_may_have_ended_in_the_midst_of_something(
    state: str, reason: str, stop: str | None, cut: bool
) -> None:
    assert is_cut(state, reason, stop) is cut


def test_what_was_asked() -> None:
    assert asked({"prompt": "Hi", "messages": None}) == [{"role": "user", "content": "Hi"}]
    assert asked({"prompt": "", "messages": None}) == [{"role": "user", "content": ""}]
    assert asked({"messages": _QUESTION}) is _QUESTION
    for request in ({"prompt": [1, 2], "messages": None}, {}):
        with pytest.raises(InvalidRequest, match="token ids"):
            asked(request)


def test_a_conversation_goes_on_with_what_was_asked_and_answered() -> None:
    answer = {"role": "assistant", "content": "It is 3."}
    assert history(_result()) == [*_QUESTION, answer]
    assert len(_QUESTION) == 1  # which is the stored request's own
    assert history(_result(request={"prompt": "1 + 2?"})) == [*_QUESTION, answer]


def test_a_conversation_goes_on_from_a_part_of_an_answer() -> None:
    for state in ("cancelled", "interrupted", "failed"):
        assert history(_result(state=state, reason=""))[-1]["content"] == "It is 3."
    cut = _result(reason="length", log=TokenLog(_PIECES[:6], [None] * 6), switches=_SWITCHES)
    assert history(cut)[-1]["tool_calls"] == [_call("c0", '{"a":1}')]


def test_an_answer_that_had_begun_is_one_message() -> None:
    begun = {"role": "assistant", "content": "The sum: ", "reasoning_content": "hm"}
    messages = [*_QUESTION, begun]
    request = {"prompt": None, "messages": messages}
    expected = {**begun, "content": "The sum: It is 3."}
    assert history(_result(request=request)) == [*_QUESTION, expected]
    called = history(
        _result(
            request=request,
            log=TokenLog(["{}"], [1]),
            switches=[Switch(0, "tool_call", 0, "c0", "add")],
        )
    )
    assert called == [
        *_QUESTION,
        {**begun, "content": "The sum: ", "tool_calls": [_call("c0", "{}")]},
    ]
    assert messages == [*_QUESTION, begun]


def test_a_conversation_does_not_go_on_from_nothing() -> None:
    for state in ("cancelled", "interrupted", "failed"):
        with pytest.raises(InvalidRequest, match=rf"g1 ended \({state}\) before"):
            history(_result(state=state, log=TokenLog()))
    thought = _result(state="cancelled", log=TokenLog(["hm"], [1]), switches=_SWITCHES[:1])
    with pytest.raises(InvalidRequest, match="before it said"):
        history(thought)
    assert history(_result(log=TokenLog()))[-1]["content"] == ""  # so it is: it had nothing to say
