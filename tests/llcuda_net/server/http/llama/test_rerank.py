"""POST /v1/rerank: documents by rank, in the shapes of Jina's and of TEI's API."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llcuda_net.config.token_file import Users
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.config.users import Priority
from llcuda_net.errors import RequestError, UpstreamUnavailable
from llcuda_net.scheduler.ticket import SlotRequest, Ticket
from llcuda_net.server.http.llama.routes import RERANK_PATHS
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Relevance
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send

PATH = "/v1/rerank"


class Ranker(FakeUpstream):
    """Ranks by length; notes what it was asked."""

    ranks = True

    def __init__(self, error: RequestError | None = None) -> None:
        super().__init__()
        self.error = error
        self.batches: list[int] = []

    async def rerank(self, query: str, documents: list[str]) -> Relevance:
        self.batches.append(len(documents))
        if self.error is not None:
            await trio.lowlevel.checkpoint()
            raise self.error
        return await super().rerank(query, documents)


async def _rank(upstream: Any = None, path: str = PATH, **body: Any) -> tuple[int, Any]:
    async with serving(upstream or Ranker()) as (_, listener):
        reply = await send(listener, "POST", path, {"query": "q", **body})
        return reply.status, await reply.json()


@pytest.mark.parametrize("path", RERANK_PATHS)
async def test_the_best_comes_first(path: str, autojump_clock: object) -> None:
    status, answer = await _rank(path=path, documents=["a", {"text": "ccc"}, "bb"])
    assert (status, answer) == (
        200,
        {
            "model": "fake",
            "object": "list",
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
            "results": [
                {"index": 1, "relevance_score": 3.0},
                {"index": 2, "relevance_score": 2.0},
                {"index": 0, "relevance_score": 1.0},
            ],
        },
    )


async def test_some_with_their_texts(autojump_clock: object) -> None:
    _, answer = await _rank(documents=["a", "bb"], top_n=1, return_documents=True)
    assert answer["results"] == [{"index": 1, "relevance_score": 2.0, "document": {"text": "bb"}}]
    _, answer = await _rank(documents=["a"], top_n=5)
    assert len(answer["results"]) == 1


async def test_the_shape_of_tei(autojump_clock: object) -> None:
    status, answer = await _rank(path="/rerank", texts=["a", "bb"], return_text=True)
    assert (status, answer) == (
        200,
        [{"index": 1, "score": 2.0, "text": "bb"}, {"index": 0, "score": 1.0, "text": "a"}],
    )


async def test_equal_ones_keep_their_order(autojump_clock: object) -> None:
    _, answer = await _rank(documents=["a", "b", "c"])
    assert [one["index"] for one in answer["results"]] == [0, 1, 2]


async def test_many_are_asked_for_in_batches(autojump_clock: object) -> None:
    ranker = Ranker()
    _, answer = await _rank(ranker, documents=["x" * n for n in range(1, 151)])
    assert ranker.batches == [64, 64, 22]
    assert [one["index"] for one in answer["results"]] == list(range(149, -1, -1))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * 2049}, "documents"),
        ({"texts": []}, "texts"),
        ({"documents": ["a"], "texts": ["a"]}, "texts"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": [{"title": "a"}]}, "documents[0].text"),
        ({"documents": ["a"], "query": ""}, "query"),
        ({"documents": ["a"], "query": None}, "query"),
        ({"documents": ["a"], "top_n": 0}, "top_n"),
        ({"documents": ["a"], "max_chunks_per_doc": 1}, "max_chunks_per_doc"),
    ],
)
async def test_what_is_refused(body: dict[str, Any], param: str, autojump_clock: object) -> None:
    status, answer = await _rank(**body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_no_upstream_that_ranks(autojump_clock: object) -> None:
    status, answer = await _rank(FakeUpstream(), documents=["a"])
    assert (status, answer["error"]["code"]) == (400, "unsupported")
    assert "--reranking" in answer["error"]["message"]


async def test_one_that_is_not_known_yet(autojump_clock: object) -> None:
    backends = [Backend(UpstreamSpec("fake://0", "late"), FakeUpstream())]
    async with serving(backends) as (server, listener):
        server.pool.watched, backends[0].was_up = True, False
        reply = await send(listener, "POST", PATH, {"query": "q", "documents": ["a"]})
        answer = await reply.json()
    assert (reply.status, answer["error"]["code"]) == (503, "upstream_unavailable")
    assert "late" in answer["error"]["message"]


async def test_it_goes_to_the_one_that_ranks(autojump_clock: object) -> None:
    """Whatever a client calls it, and though another one is the default model."""
    chat, ranker = FakeUpstream(), Ranker()
    for name in (None, "bge", "jina-reranker-v2"):
        backends = [
            Backend(UpstreamSpec("fake://0", "chat", model="chat"), chat),
            Backend(UpstreamSpec("fake://1", "bge", model="bge"), ranker),
        ]
        status, answer = await _rank(backends, documents=["a"], model=name)
        assert (status, answer["model"]) == (200, "bge")
    assert len(ranker.batches) == 3


async def test_another_one_ranks_where_one_fails(autojump_clock: object) -> None:
    bad, good = Ranker(UpstreamUnavailable("gone", retry=True)), Ranker()
    backends = [
        Backend(UpstreamSpec(f"fake://{n}", f"up-{n}", model="bge"), one)
        for n, one in enumerate((bad, good))
    ]
    status, answer = await _rank(backends, documents=["a", "bb"])
    assert (status, len(answer["results"])) == (200, 2)
    assert (bad.batches, good.batches) == ([2], [2])


@pytest.mark.parametrize(
    ("user", "headers", "expected"),
    [
        ("", {}, Priority.NORMAL),
        ("priority=low", {}, Priority.LOW),
        ("", {"x-llcuda-priority": "low"}, Priority.LOW),
    ],
)
async def test_the_class_of_a_ranking(
    user: str,
    headers: dict[str, str],
    expected: Priority,
    autojump_clock: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = Users.parse(f"t name=ann {user}")
    async with serving(Ranker(), users=users) as (server, listener):
        submit, found = server.scheduler.submit, []

        def noted(request: SlotRequest, **options: Any) -> Ticket:
            found.append(request.priority)
            return submit(request, **options)

        monkeypatch.setattr(server.scheduler, "submit", noted)
        body = {"query": "q", "documents": ["a"]}
        reply = await send(listener, "POST", PATH, body, {"Authorization": "Bearer t", **headers})
    assert (reply.status, found) == (200, [expected])


async def test_it_is_one_of_the_capabilities_of_its_model(autojump_clock: object) -> None:
    async with serving(Ranker()) as (_, listener):
        (model,) = (await (await send(listener, "GET", "/v1/models")).json())["data"]
    assert model["capabilities"] == ["completions", "rerank"]
