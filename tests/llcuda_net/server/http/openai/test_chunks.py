"""Chunks of a streamed chat: one per piece, the same however it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import Interrupted, Overloaded
from llcuda_net.generation.state import State
from llcuda_net.server.http.delivery.format import failure_of
from llcuda_net.server.http.openai.answers import Shape, whole
from llcuda_net.server.http.openai.chunks import ChatChunks, usage_chunk
from llcuda_net.storage.channels import Switch
from tests.support.generations import GENERATION, generation_of

SHAPE = Shape("tiny")
SWITCHES = [
    Switch(0, "reasoning"),
    Switch(2, "text"),
    Switch(4, "tool_call", 0, "call_a", "weather"),
    Switch(6, "tool_call", 1, "call_b", "time"),
]
ID = b"g:1"
PIECES = ["Let me", " see", "I ", "ask", '{"a":', "1}", ""]


def _chunk(event: bytes) -> Any:
    """The data of an event that has the id ID."""
    before, after = f"id: {ID.decode()}\ndata: ".encode(), b"\n\n"
    assert event.startswith(before)
    assert event.endswith(after)
    return json.loads(event[len(before) : -len(after)])


def _deltas(chunks: list[bytes]) -> list[dict[str, Any]]:
    return [_chunk(chunk)["choices"][0]["delta"] for chunk in chunks]


def test_a_chunk_has_openais_members() -> None:
    chunks = ChatChunks(generation_of(["Hi"]), SHAPE)
    assert _chunk(chunks.at(0, ID)) == {
        "id": f"chatcmpl-{GENERATION}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "tiny",
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "Hi"},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }


def test_without_a_name_in_the_request_the_model_is_the_one_that_answered() -> None:
    generation = generation_of(["Hi"])
    generation.model = {"name": "tiny"}
    assert _chunk(ChatChunks(generation, Shape("")).at(0, ID))["model"] == "tiny"
    assert json.loads(whole([generation], Shape("")))["model"] == "tiny"


def test_each_channel_has_its_member() -> None:
    chunks = ChatChunks(generation_of(PIECES, switches=SWITCHES), SHAPE)
    assert _deltas([chunks.at(i, ID) for i in range(len(PIECES))]) == [
        {"role": "assistant", "reasoning_content": "Let me"},
        {"reasoning_content": " see"},
        {"content": "I "},
        {"content": "ask"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_a",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"a":'},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_b",
                    "type": "function",
                    "function": {"name": "time", "arguments": ""},
                }
            ]
        },
    ]


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=20))
def test_a_chunk_depends_on_its_position_alone(order: list[int]) -> None:
    generation = generation_of(PIECES, switches=SWITCHES)
    fresh = [ChatChunks(generation, SHAPE).at(i, ID) for i in range(len(PIECES))]
    chunks = ChatChunks(generation, SHAPE)
    assert [chunks.at(i, ID) for i in order] == [fresh[i] for i in order]


def test_a_switch_that_comes_later_counts() -> None:
    generation = generation_of(["a", "b"], state=State.QUEUED)
    chunks = ChatChunks(generation, SHAPE)
    chunks.at(0, ID)
    generation.switches.append(Switch(1, "reasoning"))
    assert _deltas([chunks.at(1, ID)]) == [{"reasoning_content": "b"}]


@given(st.text())
def test_any_text_comes_through(text: str) -> None:
    chunks = ChatChunks(generation_of([text]), SHAPE)
    assert _deltas([chunks.at(0, ID)])[0]["content"] == text


def test_the_last_chunk_says_why_it_ended() -> None:
    generation = generation_of(["a"], reason="length", stop="END")
    last = _chunk(ChatChunks(generation, SHAPE).last(ID))
    assert last["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert last["llcuda"] == {
        "generation": GENERATION,
        "timings": {"total": 1.5},
        "stop": "END",
    }


def test_an_empty_answer_has_a_role_all_the_same() -> None:
    last = _chunk(ChatChunks(generation_of([]), SHAPE).last(ID))
    assert last["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_further_choices_have_the_id_of_the_first() -> None:
    first, second = generation_of(["a"]), generation_of(["b"], id_="other")
    chunk = _chunk(ChatChunks(second, SHAPE, 1, first).at(0, ID))
    assert chunk["id"] == f"chatcmpl-{GENERATION}"
    assert chunk["choices"][0]["index"] == 1


def test_usage_comes_last_and_is_null_before() -> None:
    shape = Shape("tiny", usage=True)
    generations = [generation_of(["a", "b"]), generation_of(["c"])]
    chunks = ChatChunks(generations[0], shape)
    assert _chunk(chunks.at(0, ID))["usage"] is None
    assert _chunk(chunks.last(ID))["usage"] is None
    last = json.loads(usage_chunk(generations, shape))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_log_probabilities_are_openais() -> None:
    token = [7, "é".encode(), -0.5, [[7, "é".encode(), -0.5], [8, b"\xc3", None]]]
    generation = generation_of(["é"], logprobs=[[token]])
    written = _chunk(ChatChunks(generation, Shape("tiny", logprobs=2)).at(0, ID))
    assert written["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [
                    {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                    {"token": "\ufffd", "logprob": -9999.0, "bytes": [195]},
                ],
            }
        ],
        "refusal": None,
    }
    none = _chunk(ChatChunks(generation, Shape("tiny", logprobs=0)).at(0, ID))
    assert none["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert _chunk(ChatChunks(generation, SHAPE).at(0, ID))["choices"][0]["logprobs"] is None


def test_the_whole_answer() -> None:
    generation = generation_of(PIECES, switches=SWITCHES, reason="tool_calls")
    answer = json.loads(whole([generation], SHAPE))
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "I ask",
                "refusal": None,
                "reasoning_content": "Let me see",
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"a":1}'},
                    },
                    {
                        "id": "call_b",
                        "type": "function",
                        "function": {"name": "time", "arguments": ""},
                    },
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert answer["llcuda"]["generation"] == GENERATION


def test_an_answer_of_tool_calls_alone_has_no_content() -> None:
    calls = generation_of(["{}"], switches=[Switch(0, "tool_call", 0, "c", "f")])
    assert json.loads(whole([calls], SHAPE))["choices"][0]["message"]["content"] is None
    empty = json.loads(whole([generation_of([])], SHAPE))["choices"][0]["message"]
    assert empty == {"role": "assistant", "content": "", "refusal": None}


def test_a_tool_call_that_is_taken_up_again_is_one() -> None:
    switches = [
        Switch(0, "tool_call", 0, "c", "f"),
        Switch(1, "tool_call", 1, "d", "g"),
        Switch(2, "tool_call", 0, "c", "f"),
    ]
    message = json.loads(whole([generation_of(["{", "{}", "}"], switches=switches)], SHAPE))
    calls = message["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ["{}", "{}"]


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (State.CANCELLED, 409, "cancelled"),
        (State.FAILED, 429, "rate_limit_exceeded"),
        (State.INTERRUPTED, 503, "interrupted"),
    ],
)
def test_how_it_failed(state: State, status: int, code: str) -> None:
    error = Overloaded("full") if state is State.FAILED else None
    failure = failure_of(generation_of(["a"], state=state, error=error))
    assert failure is not None
    assert (failure.status, failure.code) == (status, code)


def test_what_is_done_did_not_fail() -> None:
    done = generation_of(["a"])
    assert failure_of(done) is None
    done.lost = Interrupted("the log is gone")
    failure = failure_of(done)
    assert failure is not None
    assert failure.message == "the log is gone"
