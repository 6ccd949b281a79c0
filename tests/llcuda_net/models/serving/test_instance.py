"""One local model: a load that fails leaves nothing, and what is said of its files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from llcuda_net.config.models import ModelSpec
from llcuda_net.errors import EngineError, UpstreamError
from llcuda_net.models.serving.instance import Described
from llcuda_net.upstream.residence import Wishes
from tests.support.models.instances import FakeModel


@pytest.fixture
async def nursery() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def test_it_is_loaded_once_it_has_said_what_it_is(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    model = FakeModel("a", Wishes())
    await model.load(nursery)
    assert (model.loads, model.engine.running) == (1, True)
    model.engine.ends = 2.0
    begin = trio.current_time()
    await model.unload()
    assert (trio.current_time() - begin, model.engine.running) == (2.0, False)


async def test_one_that_does_not_say_what_it_is_is_gone_when_that_is_said(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeModel("a", Wishes())

    async def ask() -> None:
        await trio.lowlevel.checkpoint()
        raise UpstreamError("it is no llama-server")

    monkeypatch.setattr(model.server, "ask", ask)
    model.engine.ends = 2.0
    with pytest.raises(UpstreamError, match="it is no llama-server"):
        await model.load(nursery)
    assert (model.loads, model.engine.running) == (0, False)


async def test_one_that_hangs_is_given_up(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    model = FakeModel("a", Wishes(), size=10**9, seconds=10**6)
    model.engine.ends = 2.0
    begin = trio.current_time()
    with pytest.raises(EngineError, match=r"^cannot load /m/a.gguf: it took more than 700 s$"):
        await model.load(nursery)
    assert trio.current_time() - begin == 702
    assert not model.engine.running
    model.engine.seconds = 1.0
    await model.load(nursery)
    assert model.engine.running


async def test_a_load_that_is_cancelled_leaves_no_process(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    model = FakeModel("a", Wishes(), seconds=5.0)
    model.engine.ends = 2.0
    with trio.move_on_after(1):
        await model.load(nursery)
    assert (model.loads, model.engine.running) == (0, False)
    assert trio.current_time() == 3


def test_folders_are_told_to_nobody_though_one_is_in_another() -> None:
    spec = ModelSpec("a", mmproj="/srv/models/deep/mmproj.gguf")
    described = Described(spec, Path("/srv/models/a.gguf"), cast(Any, None))
    text = "/srv/models/deep/mmproj.gguf is no projector of /srv/models/a.gguf"
    assert described.without_folders(text) == "mmproj.gguf is no projector of a.gguf"
