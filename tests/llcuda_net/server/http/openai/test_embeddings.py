"""POST /v1/embeddings: texts and token ids to vectors, in both encodings."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from llcuda_net.errors import UpstreamError
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send

PATH = "/v1/embeddings"


async def _embed(upstream: FakeUpstream | None = None, **body: Any) -> Any:
    async with serving(upstream or FakeUpstream()) as (server, listener):
        await server.pool.prepare()
        reply = await send(listener, "POST", PATH, {"model": "fake", **body})
        return reply.status, await reply.json()


@pytest.mark.parametrize(
    ("given", "vectors", "tokens"),
    [
        ("abc", [[3.0, 1.0]], 4),
        (["abc", "a"], [[3.0, 1.0], [1.0, 1.0]], 6),
        ([1, 2, 3], [[3.0, 1.0]], 3),
        ([[1, 2], [3]], [[2.0, 1.0], [1.0, 1.0]], 3),
    ],
)
async def test_inputs(given: Any, vectors: Any, tokens: int, autojump_clock: object) -> None:
    status, answer = await _embed(input=given)
    assert (status, answer["object"], answer["model"]) == (200, "list", "fake")
    assert [one["embedding"] for one in answer["data"]] == vectors
    assert [one["index"] for one in answer["data"]] == list(range(len(vectors)))
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


async def test_base64_is_little_endian_floats(autojump_clock: object) -> None:
    _, answer = await _embed(input="abc", encoding_format="base64")
    data = base64.b64decode(answer["data"][0]["embedding"])
    assert struct.unpack("<2f", data) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [[1, "a"]]}, "input[0][1]"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "pooling": "mean"}, "pooling"),
    ],
)
async def test_what_is_refused(body: dict[str, Any], param: str, autojump_clock: object) -> None:
    status, answer = await _embed(**body)
    assert status == 400
    assert answer["error"]["param"] == param


async def test_dimensions_that_the_model_has_anyway(autojump_clock: object) -> None:
    status, _ = await _embed(input="a", dimensions=2, user="me")
    assert status == 200


async def test_tokens_are_estimated_where_they_cannot_be_counted(autojump_clock: object) -> None:
    class Dumb(FakeUpstream):
        async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]:
            raise UpstreamError("no tokenizer")

    status, answer = await _embed(Dumb(), input="some words of a text")
    assert status == 200
    assert answer["usage"]["prompt_tokens"] > 0


async def test_an_unknown_model_where_there_are_several(autojump_clock: object) -> None:
    status, answer = await _embed(input="a", model="text-embedding-3-small")
    assert (status, answer["model"]) == (200, "fake")
