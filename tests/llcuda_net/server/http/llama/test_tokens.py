"""POST /tokenize and /detokenize, as llama-server answers them."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import Reply, send


async def _post(path: str, body: Any, upstream: FakeUpstream | None = None, **settings: Any) -> Any:
    async with serving(upstream or FakeUpstream(), **settings) as (_, listener):
        reply: Reply = await send(listener, "POST", path, body)
        return reply.status, await reply.json(), reply.headers


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"content": "ab"}, [97, 98]),
        ({"content": ""}, []),
        ({"content": "a", "add_special": True}, [256, 97]),
        ({"content": ["a", 5, "b"]}, [97, 5, 98]),
        ({"content": "a", "parse_special": False, "model": "fake"}, [97]),
        ({"content": "a", "model": "any other"}, [97]),
        (
            {"content": "\u00e9", "with_pieces": True},
            [{"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}],
        ),
    ],
)
async def test_tokenize(body: Any, tokens: Any, autojump_clock: object) -> None:
    status, answer, _ = await _post("/tokenize", body)
    assert (status, answer) == (200, {"tokens": tokens})


async def test_what_is_passed_on(autojump_clock: object) -> None:
    class Notes(FakeUpstream):
        async def tokens(self, content: Any, **options: bool) -> bytes:
            asked.append((content, options))
            return b"[]"

    asked: list[Any] = []
    await _post("/tokenize", {"content": "a", "parse_special": False}, Notes())
    await _post("/tokenize", {"content": ["b"], "add_special": True, "with_pieces": True}, Notes())
    assert asked == [
        ("a", {"special": False, "literal": True, "pieces": False}),
        (["b"], {"special": True, "literal": False, "pieces": True}),
    ]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": [[1]]}, "content[0]"),
        ("/tokenize", {"content": [-1]}, "content[0]"),
        ("/tokenize", {"content": "a", "add_special": 1}, "add_special"),
        ("/tokenize", {"content": "a", "pieces": True}, "pieces"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1 << 31]}, "tokens[0]"),
    ],
)
async def test_what_is_refused(path: str, body: Any, param: str, autojump_clock: object) -> None:
    status, answer, _ = await _post(path, body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_detokenize(autojump_clock: object) -> None:
    status, answer, headers = await _post("/detokenize", {"tokens": [104, 105], "user": "me"})
    assert (status, answer) == (200, {"content": "hi"})
    assert headers["x-llcuda-ignored"] == "user"


async def test_a_token_that_the_model_does_not_have(autojump_clock: object) -> None:
    class Small(FakeUpstream):
        async def detokenize(self, ids: list[int]) -> str:
            raise InvalidRequest("the vocabulary of the model does not have all of these token ids")

    status, answer, _ = await _post("/detokenize", {"tokens": [9]}, Small())
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


async def test_what_would_take_too_much_memory_is_refused(autojump_clock: object) -> None:
    text = {"content": "a" * (1 << 20), "with_pieces": True}
    status, answer, _ = await _post("/tokenize", text, memory_limit=64 << 20)
    assert status == 400
    assert "bytes of memory" in answer["error"]["message"]
    status, _, _ = await _post("/tokenize", {**text, "content": "a" * 1000}, memory_limit=64 << 20)
    assert status == 200
