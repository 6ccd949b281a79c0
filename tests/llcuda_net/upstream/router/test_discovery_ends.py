"""A router that is watched no more: it was closed, at any time; and bugs, which end nothing."""

from __future__ import annotations

import pytest
import structlog
import trio

from llcuda_net.upstream.router.listing import ListedModel
from llcuda_net.upstream.router.model import RoutedModel
from tests.support.upstream.scripted_router import ScriptedRouter, watched
from tests.support.upstream.scripted_upstream import Talker


async def test_what_is_closed_is_watched_no_more(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        lease = await found.placed("a")
        found.discovery.close()
        assert found.states() == {"a": "draining"}
        await trio.sleep(1)
        lists = router.lists
        await trio.sleep(30)
        lease.release()
        assert (found.pool.backends, router.lists) == ([], lists)
        await found.discovery.aclose()


async def test_what_is_closed_while_it_is_found_to_be_a_router_stays_closed(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = ScriptedRouter("a")
    router.plain = Talker()
    async with watched(router) as found:
        (entrance,) = found.pool.backends
        lease = await found.placed("plain")
        client = found.discovery._client
        models = client.models

        async def slow() -> list[ListedModel] | None:
            await trio.sleep(3)
            return await models()

        monkeypatch.setattr(client, "models", slow)
        router.plain = None
        entrance.expect_back()
        await trio.sleep(1)
        found.discovery.close()
        await trio.sleep(20)
        assert found.pool.backends == [entrance]
        lease.release()
        assert found.pool.backends == []


async def test_what_is_closed_before_it_is_watched_is_never_watched(autojump_clock: object) -> None:
    router = ScriptedRouter("a")
    router.plain = Talker()
    async with watched(router) as found:
        router.plain = None
        await found.discovery._enter()
        found.discovery.close()
        lists = router.lists
        await trio.sleep(30)
        assert (found.pool.backends, router.lists) == ([], lists)


async def test_a_bug_in_what_watches_it_ends_nothing(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = ScriptedRouter("a")
    async with watched(router) as found:
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(RoutedModel, "planned", lambda self, now: 1 / 0)
            await trio.sleep(5)
        assert {one["event"] for one in logs} == {"router_not_watched"}
        (await found.placed("a")).release()
