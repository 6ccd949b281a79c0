"""A router's models in the pool: listed, followed, loaded for those who wait, never otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog
import trio

from llcuda_net.errors import RequestError, UnknownModel
from tests.support.upstream.scripted_router import ScriptedRouter, Watched, away, watched
from tests.support.upstream.scripted_upstream import Talker, gone


def leave(lease: object) -> None:
    lease.release()  # type: ignore[attr-defined]


async def used(found: Watched, model: str) -> None:
    """Have a model loaded, and give it back."""
    leave(await found.placed(model))


# -- what it has --------------------------------------------------------------------------------


async def test_each_of_its_models_is_a_backend_in_its_place(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    router.add("b", "bee", "b:latest")
    async with watched(router) as found:
        assert found.states() == {"a": "unloaded", "b": "unloaded"}
        assert [one.name for one in found.pool.backends] == ["r/a", "r/b"]
        assert found.pool.names() == ["a", "b"]
        assert found.pool.key_of(None) == found.pool.key_of("a")
        assert found.pool.key_of("bee") == found.pool.key_of("b:latest") == found.pool.key_of("b")
        assert found.of("b").upstream.base_url == "http://router:1?model=b"
        with pytest.raises(UnknownModel, match="there are: a, b"):
            found.pool.key_of("c")


async def test_a_model_of_the_settings_is_the_only_one_that_is_used(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    router.add("c", "sea")
    async with watched(router, model="sea") as found:
        assert found.states() == {"sea": "unloaded"}
        lease = await found.placed("sea")
        assert router.loads == ["c"]
        leave(lease)


@pytest.mark.parametrize(
    ("names", "model", "reason"),
    [
        (("a", "b"), "c", "the router has no model 'c'; it has: a, b"),
        ((), None, "the router has no models; see its --models-dir and --models-preset"),
    ],
)
async def test_a_router_without_it_is_down_and_says_so(
    names: tuple[str, ...], model: str | None, reason: str, autojump_clock: object
) -> None:
    router = ScriptedRouter(*names)
    async with watched(router, model=model) as found:
        (backend,) = found.pool.backends
        assert (backend.state in ("down", "probing"), backend.reason) == (True, reason)
        router.add(model or "late")
        await trio.sleep(30)
        assert found.states() == {model or "late": "unloaded"}


async def test_nothing_is_loaded_unless_somebody_waits(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    async with watched(router) as found:
        await trio.sleep(600)
        assert router.loads == []
        assert all(not one.prompts and not one.probes for one in router.models.values())
        assert router.lists < 400
        assert found.states() == {"a": "unloaded", "b": "unloaded"}


async def test_models_that_come_and_go_do_so_in_the_pool(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    async with watched(router) as found:
        lease = await found.placed("b")
        del router.models["b"]
        router.add("c")
        await trio.sleep(3)
        assert found.states() == {"a": "unloaded", "b": "draining", "c": "unloaded"}
        leave(lease)
        assert found.states() == {"a": "unloaded", "c": "unloaded"}


async def test_the_same_model_by_another_alias_is_found_by_it(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        key = found.pool.key_of("a")
        router["a"].aliases = ("new",)
        await trio.sleep(3)
        assert found.pool.key_of("new") == found.pool.key_of("a") == key


async def test_it_is_found_without_a_warning(autojump_clock: object) -> None:
    with structlog.testing.capture_logs() as logs:
        async with watched(ScriptedRouter("a", limit=3)) as found:
            assert found.of("a").reason == "model a is not loaded by http://router:1"
    assert logs == [
        {
            "event": "router_found",
            "log_level": "info",
            "upstream": "r",
            "models": ["a"],
            "at_once": 3,
        }
    ]


async def test_weight_and_slots_change_in_place(autojump_clock: object) -> None:
    async with watched(ScriptedRouter("a", "b")) as found:
        before = list(found.pool.backends)
        await used(found, "a")
        found.discovery.apply(replace(found.discovery.spec, weight=3.0, slots=1))
        assert found.pool.backends == before
        assert [(one.spec.weight, one.model) for one in before] == [(3.0, "a"), (3.0, "b")]
        assert len(found.of("a").table) == 1
        await used(found, "b")
        assert len(found.of("b").table) == 1


# -- loading ------------------------------------------------------------------------------------


async def test_a_request_has_its_model_loaded_and_is_told_so(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    async with watched(router) as found:
        found.pool.check(found.pool.key_of("b"))  # it is not refused
        assert await found.reason("b") == "model b is being loaded by http://router:1"
        assert found.of("b").state == "loading"
        lease = await found.placed("b", 3)
        assert (lease.backend.model, router.loads) == ("b", ["b"])
        assert found.states() == {"a": "unloaded", "b": "up"}
        assert len(found.of("b").table) == 2
        leave(lease)
        await found.reason("a")
        await trio.sleep(3)
        need = found.need("a")
        router["a"].evict()
        await trio.sleep(3)
        assert found.pool.place(need) is None
        await trio.sleep(0.2)
        assert found.pool.delay(need) == pytest.approx(1.5, abs=0.5)  # from the last time
        await trio.sleep(1)
        assert found.pool.delay(need) == pytest.approx(0.5, abs=0.4)


async def test_one_that_somebody_else_has_loaded_is_up(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    router["a"].begin(10)
    async with watched(router) as found:
        assert found.of("a").state == "loading"
        await trio.sleep(8)
        assert (found.of("a").state, router.loads) == ("up", [])


async def test_one_that_cannot_be_loaded_is_said_once_and_tried_again_later(
    autojump_clock: object,
) -> None:
    router = ScriptedRouter("a", "b")
    router["a"].code = 1
    async with watched(router) as found:
        need = found.need("a")
        assert found.pool.place(need) is None
        await trio.sleep(3)
        failure = found.pool.failure(need)
        assert failure is not None
        assert failure.message == (
            "model a cannot be loaded by http://router:1: its process ended with code 1"
        )
        with pytest.raises(RequestError, match="cannot be loaded"):
            found.pool.check(need.model)
        await used(found, "b")
        assert router.loads == ["a", "b"]
        router["a"].code = 0
        await trio.sleep(30)
        assert found.pool.failure(need) is None
        await used(found, "a")


async def test_what_the_router_evicts_is_unloaded_and_not_down(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    async with watched(router) as found:
        await used(found, "a")
        with structlog.testing.capture_logs() as logs:
            router["a"].evict()
            await trio.sleep(3)
        assert found.of("a").state == "unloaded"
        assert found.of("a").upstream.properties is None  # of its process
        assert [one["event"] for one in logs] == ["model_unloaded"]
        await used(found, "a")
        assert router.loads == ["a", "a"]


async def test_a_request_that_meets_no_process_waits_until_there_is_one(
    autojump_clock: object,
) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        await used(found, "a")
        router["a"].evict()
        lease = await found.placed("a", 0.1)  # nobody has seen it yet
        with pytest.raises(RequestError) as caught:
            await lease.backend.upstream.complete(
                "x", {"n_predict": 1}, lambda _: None, lambda: None
            )
        lease.failed(caught.value)
        leave(lease)
        assert found.pool.may_recover(found.need("a"))
        leave(await found.placed("a", 4))
        assert (router.loads, found.of("a").failures) == (["a", "a"], 0)


# -- room -----------------------------------------------------------------------------------------


async def test_one_that_always_works_leaves_in_time_and_finishes_what_it_has(
    autojump_clock: object,
) -> None:
    router = ScriptedRouter("a", "b", limit=1)
    async with watched(router) as found:
        first = await found.placed("a")
        router["a"].active = 1
        need = found.need("b")
        for _ in range(8):  # it stays for a while
            assert found.pool.place(need) is None
            await trio.sleep(1)
            assert found.of("a").state == "up"
        await trio.sleep(1)
        found.pool.place(need)
        await trio.sleep(2)
        assert found.of("a").state == "leaving"
        assert found.pool.place(found.need("a")) is None  # though a slot is free
        assert found.pool.why(found.need("a")) == "model a makes room for b at http://router:1"
        assert (
            found.pool.why(need)
            == "model b waits for room at http://router:1: a finishes what it has"
        )
        assert router.loads == ["a"]
        router["a"].active = 0
        leave(first)
        leave(await found.placed("b", 5))
        assert router.loads == ["a", "b"]
        assert found.states() == {"a": "unloaded", "b": "up"}


async def test_one_that_leaves_for_nobody_any_more_stays(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b", limit=1)
    async with watched(router) as found:
        lease = await found.placed("a")
        router["a"].active = 1
        await trio.sleep(20)
        found.pool.place(found.need("b"))
        await trio.sleep(1)
        assert found.of("a").state == "leaving"
        await trio.sleep(5)  # who waited has gone
        assert found.of("a").state == "up"
        leave(lease)


async def test_users_who_alternate_do_not_have_each_request_loaded(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b", limit=1)
    done = {"a": 0, "b": 0}
    async with watched(router) as found:

        async def user(model: str) -> None:
            while True:
                lease = await found.placed(model)
                router[model].active += 1
                await trio.sleep(0.7)
                router[model].active -= 1
                leave(lease)
                done[model] += 1

        with trio.move_on_after(120):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(user, "a")
                nursery.start_soon(user, "b")
    assert 5 <= len(router.loads) <= 13
    assert min(done.values()) > 40


async def test_where_somebody_else_works_ours_go_on_there(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b", limit=1)
    async with watched(router) as found:
        await used(found, "a")
        router["a"].foreign = True
        waits = 0
        for _ in range(120):
            found.pool.place(found.need("b"))
            lease = found.pool.place(found.need("a"))
            waits += lease is None
            if lease is not None:
                leave(lease)
            await trio.sleep(1)
        assert 60 < waits < 95
        assert "no room" in await found.reason("b") or found.of("a").state == "up"
        router["a"].foreign = False
        leave(await found.placed("b"))


# -- asleep, away, gone ---------------------------------------------------------------------------


async def test_one_that_sleeps_is_woken_by_a_request_only(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        await used(found, "a")
        router["a"].sleeps = True
        await trio.sleep(2.5)
        assert found.of("a").state == "up"  # it has just worked
        calls = router["a"].used
        await trio.sleep(60)
        assert (found.of("a").state, found.of("a").reason) == (
            "unloaded",
            "model a is asleep at http://router:1",
        )
        assert router["a"].used < calls + 10
        leave(await found.placed("a", 1))
        assert router.loads == ["a"]


async def test_a_router_that_is_away_is_down_and_comes_back_with_others(
    autojump_clock: object,
) -> None:
    router = ScriptedRouter("a", "b", "c")
    async with watched(router) as found:
        await used(found, "a")
        away(router)
        for _ in range(50):
            await trio.sleep(0.1)
            assert found.of("b").state != "up"
        assert set(found.states().values()) <= {"down", "probing"}
        need = found.need("b")
        assert found.pool.place(need) is None
        assert "connection refused" in found.pool.why(need)
        assert found.pool.outage(need) > 1
        assert found.pool.failure(need) is None  # it is waited for
        await trio.sleep(5)
        router.away = None
        del router.models["c"]
        router.add("d")
        await trio.sleep(5)
        assert found.states() == {"a": "unloaded", "b": "unloaded", "d": "unloaded"}
        leave(await found.placed("b", 20))
        leave(await found.placed("a", 20))


async def test_one_that_was_out_of_reach_for_long_is_back_at_once(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        await used(found, "a")
        router.away = gone()
        await trio.sleep(300)
        backend = found.of("a")
        while backend.breaker.retry_at < trio.current_time() + 5:  # noqa: ASYNC110 - virtual
            await trio.sleep(0.5)
        assert backend.state == "down"
        router.away = None
        await trio.sleep(3)
        assert (found.of("a").state, router.loads) == ("up", ["a"])


async def test_a_router_that_comes_late_is_found(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    router.away = gone()
    async with watched(router) as found:
        assert found.pool.names() == []
        router.away = None
        await trio.sleep(20)
        assert found.states() == {"a": "unloaded"}
        await used(found, "a")


async def test_another_kind_of_server_may_answer_at_any_time(autojump_clock: object) -> None:
    router = ScriptedRouter("a", "b")
    async with watched(router) as found:
        await used(found, "a")
        router.plain = Talker()
        await trio.sleep(20)
        assert found.states() == {"plain": "up"}
        assert [one.name for one in found.pool.backends] == ["r"]
        router.plain = None
        found.pool.backends[0].expect_back()
        await trio.sleep(20)
        assert set(found.states()) == {"a", "b"}
