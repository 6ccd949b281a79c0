"""Vectors over several GPUs, of which some fail: what is found stays what is nearest."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_kernels import DeviceLostError, VectorStore
from llcuda_net.analysis.devices import Devices
from llcuda_net.analysis.shards import Shards
from llcuda_net.errors import ConfigError
from llcuda_net.storage.results.buckets import ALL
from llcuda_net.storage.results.interface import Embedding
from tests.llcuda_net.analysis.test_shards import QUERY, ROWS, embedding, nearest
from tests.support.analysis.stored import DIM, SPACE, Server, Stored


class Gpus:
    """GPUs in the host's memory; each fails after so many calls, if it is named in `after`."""

    def __init__(self, after: dict[int, int]) -> None:
        self.after = after
        self.calls: dict[int, int] = {}

    def make(self, dim: int, device: int) -> Any:
        return _OnOne(dim, device, self)

    def devices(self, asked: str = "0,1,2") -> Devices:
        return Devices(asked, make=self.make)


class _OnOne:
    def __init__(self, dim: int, device: int, gpus: Gpus) -> None:
        self._own, self._device, self._gpus = VectorStore(dim, backend="cpu"), device, gpus

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            calls = self._gpus.calls
            calls[self._device] = calls.get(self._device, 0) + 1
            if calls[self._device] > self._gpus.after.get(self._device, 1 << 30):
                raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
            return getattr(self._own, name)(*arguments)

        return call


def alone(stored: Stored, devices: Devices) -> Shards:
    return Shards(stored.ask, trio.lowlevel.checkpoint, None, devices)


async def found(shards: Shards, owner: str | None, k: int = 50) -> tuple[list[int], int]:
    hits, searched = await shards.search(SPACE, QUERY, k, owner)
    return [int(summary.id) for summary, _, _ in hits], searched


@settings(max_examples=30, deadline=None)
@given(
    rows=ROWS,
    after=st.dictionaries(st.integers(0, 2), st.integers(0, 6), max_size=3),
    first=st.integers(0, 40),
    clustered=st.booleans(),
)
def test_it_is_what_one_store_finds_whichever_fails(
    rows: list[Any], after: dict[int, int], first: int, clustered: bool
) -> None:
    """At any call, one after the other, also all of them; alone, and as a server of a cluster."""
    stored = Stored([embedding(place, *row) for place, row in enumerate(rows)])
    later = stored.rows[first:]
    stored.rows = stored.rows[:first]
    devices = Gpus(after).devices()

    async def search() -> None:
        shards = alone(stored, devices)
        if clustered:
            shards = Server(stored, {}, 1).shards
            shards._devices = devices
        for _ in range(2):
            for owner in (None, "ann", "carl"):
                seqs, searched = await found(shards, owner)
                assert seqs == nearest(stored, owner, 50)
                assert searched == sum(owner in (None, one.owner) for one in stored.rows)
            stored.rows += later  # some on the GPUs that are left
            later.clear()

    trio.run(search)


async def test_a_lost_gpu_is_told_once_and_read_again_once() -> None:
    rows = [embedding(place, (1, place % 3, 0, 0), "ann") for place in range(12)]
    stored = Stored(rows)
    shards = alone(stored, Gpus({1: 2}).devices("0,1"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            assert (await found(shards, "ann"))[0] == nearest(stored, "ann", 50)
    (lost,) = [line for line in logs if line["event"] == "analysis_gpu_lost"]
    assert lost["reason"].startswith("GPU 1 failed: CUDA_ERROR_LAUNCH_FAILED")
    assert lost["now_on"] == "0"
    assert stored.read == 2 * len(rows)


async def test_without_any_left_the_cpu_searches() -> None:
    stored = Stored([Embedding(1, 1, "ann", 0.1, bytes([1, 0, 0, 0]))])
    devices = Gpus({0: 0}).devices("0")
    with structlog.testing.capture_logs() as logs:
        assert (await found(alone(stored, devices), None))[0] == [1]
    assert [line["now_on"] for line in logs if line["event"] == "analysis_gpu_lost"] == ["the CPU"]
    assert isinstance(devices.store(DIM), VectorStore)


async def test_what_is_held_is_read_again_when_a_gpu_fails_at_that() -> None:
    stored = Stored([embedding(place, (1, 0, 0, 0), "ann") for place in range(20)])
    servers: dict[int, Server] = {}
    shards = Server(stored, servers, 1).shards
    gpus = Gpus({})
    shards._devices = gpus.devices("0,1")
    await found(shards, None)
    gpus.after = {0: 0}
    _, index = shards._held[SPACE.id]
    await shards._hold(index, SPACE, ALL >> 1)
    gpus.after = {1: 0}
    assert (await found(shards, None))[0] == nearest(stored, None, 50)


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llcuda_kernels.several.one_process.gpu_count", lambda: 2)
    Devices("0,1").check()
    Devices("all").check()
    with pytest.raises(ConfigError, match="no GPU 5: GPUs 0 to 1 are there"):
        Devices("0,5").check()
    monkeypatch.setattr("llcuda_kernels.several.one_process.gpu_count", lambda: 0)
    with pytest.raises(ConfigError, match="no GPU 0: "):
        Devices("0").check()
    Devices("none").check()


async def test_two_searches_that_lose_the_same_gpu_are_one_loss() -> None:
    stored = Stored([embedding(place, (1, 0, 0, 0), "ann") for place in range(20)])
    shards = alone(stored, Gpus({}).devices("0,1"))
    await found(shards, None)
    _, index = shards._held[SPACE.id]
    lost = DeviceLostError(1, RuntimeError("CUDA_ERROR_LAUNCH_FAILED"))
    read = stored.read
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            index.recover(stored, SPACE, lost)  # type: ignore[arg-type]
    assert [line["event"] for line in logs] == ["analysis_gpu_lost"]
    assert stored.read == read + 20
    assert (await found(shards, None))[0] == nearest(stored, None, 50)
