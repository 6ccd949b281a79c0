"""GET /v1/models: what each model is, and what serves it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import convert

from llcuda_net.cluster.owners.loads import ModelLoad
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.http.openapi.answers import Model
from llcuda_net.upstream.backend import Backend
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send


async def test_a_model(autojump_clock: object) -> None:
    upstream = FakeUpstream(slots=3, context=256)
    assert upstream.properties is not None
    upstream.properties = replace(upstream.properties, images=True, audio=True)
    async with serving(upstream) as (server, listener):
        await server.pool.prepare()
        reply = await send(listener, "GET", "/v1/models")
        (model,) = (await reply.json())["data"]
        alone = await (await send(listener, "GET", "/v1/models/fake")).json()
    assert model == alone
    assert model["id"] == "fake"
    assert model["object"] == "model"
    assert (model["context_length"], model["slots"], model["free_slots"]) == (256, 3, 3)
    assert model["state"] == "loaded"
    assert model["modalities"] == ["text", "image", "audio"]
    assert "completions" in model["capabilities"]


async def test_a_model_with_two_upstreams_is_one(autojump_clock: object) -> None:
    backends = [
        Backend(UpstreamSpec(f"fake://{n}", str(n), model="large"), FakeUpstream(slots=2))
        for n in range(2)
    ]
    async with serving(backends) as (server, listener):
        await server.pool.prepare()
        (model,) = (await (await send(listener, "GET", "/v1/models")).json())["data"]
        assert (model["id"], model["slots"], model["state"]) == ("large", 4, "loaded")
        for backend in backends:
            backend.watched = True
            backend.mark_down("gone")
        (model,) = (await (await send(listener, "GET", "/v1/models")).json())["data"]
        assert (model["slots"], model["state"]) == (0, "down")
        backends[0].loading = True
        (model,) = (await (await send(listener, "GET", "/v1/models")).json())["data"]
        assert model["state"] == "loading"


async def test_a_model_that_only_another_server_has(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ModelLoad(("big",), 4, 1, 3)
    found = {"large": large, "big": large, "fake": ModelLoad((), 9, 9), "gone": ModelLoad()}
    monkeypatch.setattr(Gateway, "elsewhere_models", found)
    async with serving(FakeUpstream()) as (_, listener):
        models = (await (await send(listener, "GET", "/v1/models")).json())["data"]
        alone = await (await send(listener, "GET", "/v1/models/big")).json()
        missing = await (await send(listener, "GET", "/v1/models/x")).json()
    assert [(one["id"], one["source"]) for one in models] == [
        ("fake", "upstream"),
        ("large", "cluster"),
        ("gone", "cluster"),
    ]
    assert alone == models[1]
    assert (alone["aliases"], alone["slots"], alone["free_slots"]) == (["big"], 4, 1)
    assert (alone["state"], alone["waiting"]) == ("loaded", 3)
    assert (models[2]["state"], models[2]["status"]["value"]) == ("down", "unloaded")
    assert "there are: fake, large, gone" in missing["error"]["message"]
    convert(models, list[Model])  # as the document of the API says


async def test_a_model_that_is_not_there(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await send(listener, "GET", "/v1/models/gpt-4o")
        error = (await reply.json())["error"]
    assert (reply.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "there are: fake" in error["message"]


async def test_another_role_s_model_is_never_answered_for(autojump_clock: object) -> None:
    """Where one model completes, any name will do: but not that of another model that is there."""
    roles = {"talks": "completions", "embeds": "embeddings"}
    backends = [
        Backend(
            UpstreamSpec(
                f"fake://{name}",
                name,
                model=name,
                roles=frozenset({role}),
                aliases=(f"also-{name}",),
            ),
            FakeUpstream(),
        )
        for name, role in roles.items()
    ]
    async with serving(backends) as (server, listener):
        await server.pool.prepare()
        for name in ("embeds", "also-embeds"):
            body = {"model": name, "messages": [{"role": "user", "content": "a"}]}
            reply = await send(listener, "POST", "/v1/chat/completions", body)
            error = (await reply.json())["error"]
            assert (reply.status, error["code"]) == (404, "model_not_found")
            assert "is not for completions; for that there are: talks" in error["message"]
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]}
        reply = await send(listener, "POST", "/v1/chat/completions", body)
        assert (reply.status, (await reply.json())["model"]) == (200, "talks")
        one = await (await send(listener, "GET", "/v1/models/also-embeds")).json()
    assert one["id"] == "embeds"


async def test_a_folder_s_last_model_answers_for_no_other(autojump_clock: object) -> None:
    """The model that a client names may have been taken out of the folder a moment ago."""
    body = {"model": "gone", "prompt": "x", "max_tokens": 1}
    async with serving(FakeUpstream(), models="/folder") as (server, listener):
        await server.pool.prepare()
        reply = await send(listener, "POST", "/v1/completions", body)
        assert reply.status == 404
    async with serving(FakeUpstream()) as (server, listener):
        await server.pool.prepare()
        reply = await send(listener, "POST", "/v1/completions", body)
        assert reply.status == 200
