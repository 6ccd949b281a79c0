"""One model of a router, without what watches it."""

from __future__ import annotations

import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import UpstreamBusy
from llcuda_net.upstream.residence import Presence, Wishes
from llcuda_net.upstream.router.listing import ListedModel, Status
from llcuda_net.upstream.router.model import LAPSE, RETRY, Demand, RoutedModel
from tests.support.upstream.scripted_router import URL, ScriptedRouter
from tests.support.upstream.scripted_upstream import gone


def routed() -> RoutedModel:
    server = ScriptedRouter("a")["a"]
    spec = UpstreamSpec(URL, "r/a", model="a")
    found = RoutedModel(ListedModel("a", Status.UNLOADED), spec, server, Wishes(), None)
    found.backend.watched = True
    return found


async def test_one_out_of_reach_gets_nothing_from_then_on(autojump_clock: object) -> None:
    model = routed()
    model.unreachable(gone("refused"))
    backend = model.backend
    assert (backend.absent, backend.up, backend.state, backend.reason) == (
        False,
        False,
        "down",
        "refused",
    )


async def test_one_without_room_is_not_asked_for_all_the_time(autojump_clock: object) -> None:
    model = routed()
    assert model.begin_load()
    assert not model.begin_load()
    model.not_loaded(UpstreamBusy("no room"))
    assert model.backend.reason == "model a waits: no room"
    assert not model.begin_load()
    await trio.sleep(RETRY)
    assert model.begin_load()


async def test_who_waits_says_so_again_and_wakes_once(autojump_clock: object) -> None:
    wishes = Wishes()
    demand = Demand(wishes)
    assert demand.waited_since() is None
    await trio.sleep(100)
    begin = trio.current_time()
    woken = 0
    for _ in range(10):
        demand.missed()
        with trio.move_on_after(1):
            await wishes.wait()
            woken += 1
            await trio.sleep_forever()
        assert demand.waited_since() == begin
    assert woken == 1
    await trio.sleep(LAPSE)
    assert demand.waited_since() is None
    demand.want()
    assert demand.waited_since() == trio.current_time()
    demand.move(Presence.LOADED)
    await trio.sleep(LAPSE + 3)
    assert demand.waited_since() is None
