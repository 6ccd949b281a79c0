"""POST /models/load and /models/unload, and what GET /models says meanwhile."""

from __future__ import annotations

from typing import Any, cast

import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.token_file import Users
from llcuda_net.models.need import Budget, Need
from llcuda_net.models.serving.instance import Instance
from tests.support.models.local_models import (
    FOLDER,
    LOAD,
    FakeInstance,
    LocalServer,
    serving_models,
)
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send

CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


async def _post(rig: LocalServer, path: str, model: str) -> tuple[int, dict[str, Any]]:
    reply = await send(rig.listener, "POST", path, {"model": model})
    return reply.status, await reply.json()


async def _model(rig: LocalServer, name: str, path: str = "/models") -> dict[str, Any]:
    listed = (await (await send(rig.listener, "GET", path)).json())["data"]
    return next(one for one in listed if one["id"] == name)


def with_alias() -> ModelSpec:
    return ModelSpec("c", ctx=2048, aliases=("third",))


async def test_a_model_is_loaded_and_unloaded(autojump_clock: object) -> None:
    async with serving_models("a", "b", with_alias()) as rig:
        model = await _model(rig, "a")
        assert (model["state"], model["status"]["value"], model["loads"]) == (
            "unloaded",
            "unloaded",
            0,
        )
        assert model["memory"] == {"host": 10, "gpu": 0}
        assert await _post(rig, "/models/load", "a") == (200, {"success": True})
        await trio.sleep(LOAD / 10)
        model = await _model(rig, "a")
        assert (model["state"], model["status"]["value"]) == ("loading", "loading")
        assert model["status"]["reason"] == "model a is being loaded"
        await trio.sleep(LOAD)
        model = await _model(rig, "a")
        assert (model["state"], model["slots"], model["loads"]) == ("loaded", 2, 1)
        assert model["status"] == {"value": "loaded", "args": []}
        assert (await _model(rig, "b"))["state"] == "unloaded"
        assert await _post(rig, "/models/unload", "a") == (200, {"success": True})
        await trio.sleep(0.1)
        assert (await _model(rig, "a"))["state"] == "unloaded"


async def test_one_whose_engine_died_says_so(autojump_clock: object) -> None:
    async with serving_models("a", "b") as rig:
        assert (await send(rig.listener, "POST", "/v1/chat/completions", CHAT)).status == 200
        rig.models["a"].backend.watched = True
        rig.models["a"].backend.mark_down("it closed the connection")
        model = await _model(rig, "a")
        assert (model["state"], model["status"]["reason"]) == ("down", "it closed the connection")


async def test_both_lists_are_the_same(autojump_clock: object) -> None:
    async with serving_models("a", with_alias()) as rig:
        for name in ("a", "c"):
            model = await _model(rig, name)
            assert model == await _model(rig, name, "/v1/models")
            alone = await (await send(rig.listener, "GET", f"/v1/models/{name}")).json()
            assert alone == model
        assert (model["context_length"], model["aliases"], model["source"]) == (
            2048,
            ["third"],
            "local",
        )


async def test_an_alias_is_as_good_as_the_name(autojump_clock: object) -> None:
    async with serving_models("a", with_alias()) as rig:
        assert (await _post(rig, "/models/load", "third"))[0] == 200
        await trio.sleep(2 * LOAD)
        assert rig.models["c"].loads == 1


async def test_what_is_so_already_is_refused_as_the_router_does(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        status, body = await _post(rig, "/models/unload", "a")
        assert (status, body["error"]["message"]) == (400, "model a is not loaded")
        await _post(rig, "/models/load", "a")
        await trio.sleep(LOAD / 2)
        status, body = await _post(rig, "/models/load", "a")
        assert (status, body["error"]["message"]) == (400, "model a is being loaded already")
        await trio.sleep(LOAD)
        status, body = await _post(rig, "/models/load", "a")
        assert (status, body["error"]["message"]) == (400, "model a is loaded already")


async def test_an_unknown_model(autojump_clock: object) -> None:
    async with serving_models("a", "b") as rig:
        for path in ("/models/load", "/models/unload"):
            status, body = await _post(rig, path, "nobody")
            assert (status, body["error"]["code"]) == (404, "model_not_found")
            assert body["error"]["message"] == "there is no model 'nobody'; there are: a, b"


async def test_a_model_that_never_fits(autojump_clock: object) -> None:
    async with serving_models("a", budget=Budget(5)) as rig:
        status, body = await _post(rig, "/models/load", "a")
        assert (status, body["error"]["code"]) == (400, "unsupported")
        assert (
            "use a smaller context or quantisation, or a larger --memory"
            in (body["error"]["message"])
        )
        reply = await send(rig.listener, "POST", "/v1/chat/completions", CHAT)
        assert reply.status == 400
        assert (await reply.json())["error"]["message"] == body["error"]["message"]
        rig.manager.set_budget(Budget(10))  # as SIGHUP does
        reply = await send(rig.listener, "POST", "/v1/chat/completions", CHAT)
        assert reply.status == 200


async def test_a_model_that_cannot_be_loaded(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        rig.models["a"].failure = f"cannot load {FOLDER}/a.gguf: it is damaged"
        reply = await send(rig.listener, "POST", "/v1/chat/completions", CHAT)
        error = (await reply.json())["error"]
        assert (reply.status, error["message"]) == (503, "cannot load a.gguf: it is damaged")
        assert int(reply.headers["retry-after"]) >= 1
        model = await _model(rig, "a")
        assert (model["state"], model["status"]["failed"]) == ("unloaded", True)
        assert model["status"]["error"] == "cannot load a.gguf: it is damaged"
        rig.models["a"].failure = None
        assert (await _post(rig, "/models/load", "a"))[0] == 200
        await trio.sleep(LOAD / 2)
        assert "failed" not in (await _model(rig, "a"))["status"]
        reply = await send(rig.listener, "POST", "/v1/chat/completions", CHAT)
        assert reply.status == 200


async def test_no_answer_says_where_files_are(autojump_clock: object) -> None:
    async with serving_models("a", "b") as rig:
        rig.models["a"].failure = f"cannot load {FOLDER}/a.gguf: it is damaged"
        await _post(rig, "/models/load", "a")
        await _post(rig, "/models/load", "b")
        await trio.sleep(3 * LOAD)
        for path in ("/models", "/v1/models", "/metrics"):
            reply = await send(rig.listener, "GET", path)
            assert b"secret" not in await reply.body()
        assert "secret" not in str(rig.manager.report())


async def test_only_admins_load(autojump_clock: object) -> None:
    users = Users.parse(f"{'u' * 32} name=user\n{'r' * 32} name=root role=admin\n", "tokens")
    async with serving_models("a", users=users) as rig:
        for path in ("/models/load", "/models/unload"):
            reply = await send(
                rig.listener, "POST", path, {"model": "a"}, {"Authorization": f"Bearer {'u' * 32}"}
            )
            error = (await reply.json())["error"]
            assert (reply.status, error["type"]) == (403, "permission_error")
            assert "role=admin" in error["message"]
        reply = await send(
            rig.listener,
            "POST",
            "/models/load",
            {"model": "a"},
            {"Authorization": f"Bearer {'r' * 32}"},
        )
        assert reply.status == 200
        # Who may not load it may still see how it stands.
        reply = await send(
            rig.listener, "GET", "/models", None, {"Authorization": f"Bearer {'u' * 32}"}
        )
        assert reply.status == 200


async def test_models_of_upstreams_are_theirs(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await send(listener, "POST", "/models/load", {"model": "fake"})
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (400, "unsupported")
        assert "its upstream loads" in error["message"]
        reply = await send(listener, "POST", "/models/load", {"model": "gpt-4o"})
        assert reply.status == 404
        (model,) = (await (await send(listener, "GET", "/models")).json())["data"]
        assert (model["source"], model["status"]["value"]) == ("upstream", "loaded")
        assert model["memory"] is model["engine"] is model["loads"] is None


async def test_fields_that_do_not_exist_are_refused(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        reply = await send(rig.listener, "POST", "/models/load", {"model": "a", "wait": True})
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, "wait")
        assert rig.models["a"].loads == 0


async def test_a_request_loads_again_what_was_unloaded_by_hand(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        await _post(rig, "/models/load", "a")
        await trio.sleep(2 * LOAD)
        await _post(rig, "/models/unload", "a")
        await trio.sleep(1)
        assert (await send(rig.listener, "POST", "/v1/chat/completions", CHAT)).status == 200
        await trio.sleep(10 * LOAD)
        model = await _model(rig, "a")
        assert (model["state"], model["loads"]) == ("loaded", 2)  # and so it stays


async def test_a_load_that_waits_can_be_called_off(autojump_clock: object) -> None:
    async with serving_models("a", "b", budget=Budget(15)) as rig:
        await _post(rig, "/models/load", "a")
        await _post(rig, "/models/load", "b")
        await trio.sleep(LOAD / 2)
        model = await _model(rig, "b")
        assert (model["state"], model["wanted"]) == ("unloaded", True)
        assert await _post(rig, "/models/unload", "b") == (200, {"success": True})
        await trio.sleep(10 * LOAD)
        assert (rig.models["a"].loads, rig.models["b"].loads) == (1, 0)


async def test_what_a_router_reads_again_is_named_as_ignored(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        reply = await send(rig.listener, "GET", "/models?reload=1")
        assert (reply.status, reply.headers["x-llcuda-ignored"]) == (200, "reload")
        reply = await send(rig.listener, "GET", "/models")
        assert "x-llcuda-ignored" not in reply.headers


async def test_a_stream_says_why_nothing_comes(autojump_clock: object) -> None:
    async with serving_models("a") as rig:
        reply = await send(rig.listener, "POST", "/v1/chat/completions", {**CHAT, "stream": True})
        assert (await reply.all())[-1].done
        assert any(one.endswith(": model a is being loaded") for one in reply.comments)


async def _count_tokens(rig: LocalServer, model: str, answers: list[int]) -> None:
    body = {"model": model, "content": "Hello"}
    answers.append((await send(rig.listener, "POST", "/tokenize", body)).status)


async def test_questions_to_one_that_loads_hold_up_no_others(autojump_clock: object) -> None:
    async with serving_models("a", "b") as rig, trio.open_nursery() as nursery:
        answers: list[int] = []
        await _count_tokens(rig, "a", answers)
        for _ in range(20):
            nursery.start_soon(_count_tokens, rig, "b", answers)
        await trio.sleep(LOAD / 10)
        with trio.fail_after(LOAD / 10):
            await _count_tokens(rig, "a", answers)
        assert answers == [200, 200]


async def test_a_question_to_one_whose_table_changes_goes_to_the_new_one(
    autojump_clock: object,
) -> None:
    async with serving_models("a", "b") as rig:
        answers: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_count_tokens, rig, "a", answers)
            await trio.sleep(LOAD / 10)
            nursery.start_soon(_count_tokens, rig, "b", answers)  # it waits for the load of a
            await trio.sleep(LOAD / 10)
            rig.manager.remove("b")
            fresh = FakeInstance(ModelSpec("b"), Need(10), rig.wishes)
            rig.manager.add(cast(Instance, fresh))
        assert answers == [200, 200]
