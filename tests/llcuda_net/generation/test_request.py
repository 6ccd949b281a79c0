"""Which requests are the same: what a key, and the cache, compare."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from llcuda_net.config.settings import Settings
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import InvalidRequest, KeyConflict
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.registry import check_key
from llcuda_net.generation.request import comparable, from_request
from llcuda_net.storage.records import Level, hash_of
from llcuda_protocol import Accepted, Done, Error, Generate
from llcuda_protocol.frames import encode
from tests.support.protocol.any_frame import JSON_MAPS
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import ask, paused, ready

CHAT: dict[str, Any] = {
    "prompt": None,
    "messages": [{"role": "user", "content": "a"}],
    "chat": {"tools": []},
}


async def made(**changes: Any) -> Generation:
    request = Generate(1, 0, **{"prompt": "a", **changes})
    return from_request(request, Settings(), Level.MEMORY, 512, ANONYMOUS, 16 << 20)


async def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (await made(**one)).request_hash == (await made(**other)).request_hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"temperature": 1, "top_p": 0.5}, {"top_p": 0.5, "temperature": 1.0}),
        (
            {"json_schema": {"enum": [1, 2.0, {"a": [3.0]}]}},
            {"json_schema": {"enum": [1.0, 2, {"a": [3]}]}},
        ),
        ({"logit_bias": [[5, 1.0]]}, {"logit_bias": [[5, 1]]}),
    ],
)
async def test_numbers_of_the_same_value_are_equal(one: Any, other: Any) -> None:
    """Many languages have one kind of number only."""
    assert await same({"params": one}, {"params": other})


async def test_so_are_those_in_the_options_of_a_chat() -> None:
    one, other = (CHAT | {"chat": {"tools": [{"minimum": n}]}} for n in (1, 1.0))
    assert await same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"params": {"cache_prompt": True}}, {}),
        ({"params": {"temperature": 0.5}}, {"params": {"temperature": 0}}),
        ({"params": {"json_schema": {"const": True}}}, {"params": {"json_schema": {"const": 1}}}),
        ({"params": {"json_schema": {"const": "1"}}}, {"params": {"json_schema": {"const": 1}}}),
        ({"params": {"json_schema": {"const": None}}}, {"params": {"json_schema": {}}}),
        (
            {"params": {"json_schema": {"const": 1 << 53}}},
            {"params": {"json_schema": {"const": (1 << 53) + 1}}},
        ),
        ({"prompt": "a"}, {"prompt": [97]}),
        ({"prompt": "\u00e9"}, {"prompt": "e\u0301"}),
        ({}, {"model": "m"}),
        (CHAT, CHAT | {"chat": {"tools": [], "tool_choice": "none"}}),
        (CHAT, {"prompt": None, "messages": CHAT["messages"]}),
        (CHAT | {"model": "m"}, CHAT),
    ],
)
async def test_other_values_are_not(one: Any, other: Any) -> None:
    assert not await same(one, other)


def as_floats(value: Any) -> Any:
    """What a language whose numbers are floats makes of a value, where it can."""
    if type(value) is int and value == float(value):
        return float(value)
    if isinstance(value, dict):
        return {key: as_floats(entry) for key, entry in value.items()}
    return [as_floats(entry) for entry in value] if isinstance(value, list) else value


@settings(max_examples=15, deadline=None)
@given(JSON_MAPS)
def test_a_request_is_the_same_through_another_languages_numbers(params: dict[str, Any]) -> None:
    assert hash_of(comparable(params)) == hash_of(comparable(as_floats(params)))


async def test_a_key_stored_by_an_earlier_server_still_means_its_request() -> None:
    """Those compared 1 and 1.0 as different; what they stored keeps its hash."""
    generation = await made(params={"temperature": 1.0})
    earlier = hash_of(["a", None, {"temperature": 1.0}])
    hashes = generation.request_hash, generation.earlier_hash
    for known in (earlier, generation.request_hash):
        check_key("k", known, *hashes)
    with pytest.raises(KeyConflict):
        check_key("k", hash_of(["a", None, {"temperature": 2.0}]), *hashes)
    whole = await made(params={"temperature": 1})
    assert whole.request_hash == hash_of(["a", None, {"temperature": 1}])
    with pytest.raises(KeyConflict):
        check_key("k", b"", whole.request_hash, whole.earlier_hash)


async def test_a_key_sent_again_in_another_language(tmp_path: Path) -> None:
    """While it runs, when it is done, and after a restart of the server."""
    sent = [{"temperature": 0, "seed": 3}, {"temperature": -0.0, "seed": 3.0}]
    ids = set()
    for _ in range(2):
        upstream = paused()
        async with keeping(tmp_path, upstream) as (_, listener):
            peer = await ready(listener)
            for number, params in enumerate(sent * 2, 1):
                await peer.send(ask("a b", number, key="k", params=params))
                ids.add((await peer.until(Accepted, number))[1].id)
                if number >= 2:  # both have joined it
                    upstream.release(2)
                    await peer.until(Done, number)
            await peer.send(ask("a b", 9, key="k", params={"temperature": 0.5, "seed": 3}))
            _, error = await peer.until(Error, 9)
            assert error.code == "key_conflict"
    assert len(ids) == 1


async def test_numbers_that_are_none_are_refused_before() -> None:
    """NaN equals nothing, so no request has it."""
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            encode(Generate(1, 0, prompt="a", params={"temperature": wrong}))


async def test_a_count_may_come_as_a_float() -> None:
    """From a language that has no other numbers; half a token is refused as before."""
    generation = await made(params={"n_predict": 40.0, "temperature": 0.5})
    assert generation.params["n_predict"] == 40
    assert type(generation.params["n_predict"]) is int
    with pytest.raises(InvalidRequest, match="n_predict must be a whole number"):
        await made(params={"n_predict": 40.5})


async def test_memory_limits_the_tokens_where_the_request_does_not() -> None:
    def limit(most_log: int, **params: int) -> object:
        request = Generate(1, 0, prompt="x", params=params)
        made = from_request(request, Settings(), Level.MEMORY, 4096, ANONYMOUS, most_log)
        return made.params["n_predict"]

    assert limit(16 << 20) == limit(16 << 20, n_probs=20) == 4096
    fitting = limit(16 << 20, n_probs=1000)
    assert isinstance(fitting, int)
    assert 600 < fitting < 800
    assert limit(16 << 20, n_probs=1000, n_predict=4000) == 4000  # refused, with the numbers


async def test_a_request_without_options_of_a_chat_keeps_its_hash() -> None:
    one = await made(prompt=None, messages=CHAT["messages"], model="m")
    assert one.request_hash == hash_of([None, CHAT["messages"], {}, "m"])


@pytest.mark.parametrize("params", [{}, {"seed": -1}, {"seed": (1 << 32) - 1}, {"temperature": 0}])
async def test_a_request_without_a_seed_gets_one(params: dict[str, Any]) -> None:
    one, other = [await made(params=params) for _ in range(2)]
    assert one.seed is not None
    assert 0 <= one.seed < (1 << 32) - 1
    assert one.seed != other.seed
    assert one.params.get("seed") == params.get("seed")
    assert one.request_hash == other.request_hash


@pytest.mark.parametrize("seed", [0, 7, (1 << 32) - 2])
async def test_a_seed_of_the_user_stays(seed: int) -> None:
    assert (await made(params={"seed": seed})).seed is None


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "", "tool_call_id": "1"},
    ],
)
async def test_messages_that_say_something(message: dict[str, Any]) -> None:
    assert (await made(prompt=None, messages=[message])).messages == [message]


@pytest.mark.parametrize("content", ["", None, []])
async def test_a_message_that_says_nothing_is_refused(content: Any) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        await made(prompt=None, messages=[{"role": "user", "content": content}])


async def test_options_of_a_chat_go_with_messages() -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        await made(chat={"tools": []})
