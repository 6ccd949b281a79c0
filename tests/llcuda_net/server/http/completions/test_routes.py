"""Completions of a server in memory: what reaches the upstream, and what is answered."""

from __future__ import annotations

from typing import Any

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import ask, reply, resume, send

PATH = "/v1/completions"


async def _post(listener: MemoryListener, status: int = 200, **fields: Any) -> Any:
    answer = await reply(*await ask(listener, "POST", PATH, fields))
    assert answer.status == status
    return await answer.json()


async def test_a_text_goes_on(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        answer = await _post(listener, prompt="a b", max_tokens=2, temperature=0)
    assert answer["choices"][0]["text"] == "a b"
    assert answer["usage"]["completion_tokens"] == 2
    assert upstream.prompts == ["a b"]
    assert upstream.calls[0]["n_predict"] == 2


async def test_several_prompts_have_their_choices_in_order(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        answer = await _post(listener, prompt=["a", "b"], n=2, echo=True, seed=3)
    assert [one["text"] for one in answer["choices"]] == ["aa", "aa", "bb", "bb"]
    assert sorted(call["seed"] for call in upstream.calls) == [3, 4, 5, 6]


async def test_token_ids_are_sent_as_they_are(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        answer = await _post(listener, prompt=[[104, 105], [106]], echo=True)
    assert sorted(upstream.prompts) == [[104, 105], [106]]
    assert answer["choices"][0]["text"].startswith("hi")
    assert answer["choices"][1]["text"].startswith("j")


async def test_where_one_upstream_fails_another_one_says_what_token_ids_are(
    autojump_clock: object,
) -> None:
    class Gone(FakeUpstream):
        async def detokenize(self, ids: list[int]) -> str:
            raise UpstreamUnavailable("it is not there", retry=True)

    def backend(number: int, upstream: FakeUpstream) -> Backend:
        return Backend(UpstreamSpec(f"fake://{number}", f"up-{number}", model="one"), upstream)

    body: dict[str, Any] = {"prompt": [104, 105], "echo": True, "max_tokens": 1}
    async with serving([backend(0, Gone()), backend(1, FakeUpstream())]) as (_, listener):
        answer = await _post(listener, **body)
        assert answer["choices"][0]["text"].startswith("hi")
    async with serving([backend(0, Gone())]) as (_, listener):
        error = (await _post(listener, 503, **body))["error"]
        assert (error["message"], error["param"]) == ("it is not there", None)


async def test_a_gap_is_filled_between_the_models_marks(autojump_clock: object) -> None:
    upstream = FakeUpstream()
    async with serving(upstream) as (_, listener):
        await _post(listener, prompt="a", suffix="b")
        assert (await _post(listener, 400, prompt=[1], suffix="b"))["error"]["param"] == "suffix"
    assert upstream.prompts == [[257, 97, 258, 98, 259]]
    assert "input_suffix" not in upstream.calls[0]


async def test_a_stream_is_taken_up_in_its_own_shape(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        body = {"prompt": "a b c", "stream": True}
        connection, stream = await ask(listener, "POST", PATH, body, {"Idempotency-Key": "k"})
        upstream.release(2)
        answer = await reply(connection, stream)
        events = await answer.some(2)
        upstream.release(2)
        rest = await (await resume(listener, answer.generations[0], events[1].id)).all()
    assert [one.json["choices"][0]["text"] for one in [*events, *rest[:-1]]] == [
        "a",
        " b",
        " c",
        "",
    ]
    assert rest[-2].json["object"] == "text_completion"
    assert rest[-1].done


async def test_a_generation_of_it_is_shown_as_any_other(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await _post(listener, prompt="a b")
        id_ = answer["id"].removeprefix("cmpl-")
        shown = await (await send(listener, "GET", f"/v1/generations/{id_}")).json()
    assert shown["text"] == "a b"
    assert shown["model"] == "fake"
