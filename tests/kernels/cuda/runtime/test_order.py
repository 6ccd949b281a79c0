"""In which order, on which stream and GPU work is queued; on a driver that runs nothing."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import llcuda_kernels as k
from tests.support.kernels.fake_driver import FakeDriver, Interface
from tests.support.kernels.kinds import Kind, Ours, spread
from tests.support.kernels.table import OPERATIONS, made

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="numba-cuda is for Linux"
)
X = np.ones((4, 1024), np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    found = FakeDriver(2)
    found.install(monkeypatch)
    return found


def waits(fake: FakeDriver) -> list[tuple[Any, ...]]:
    return [entry[1:] for entry in fake.log if entry[0] == "wait"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_queued(name: str, fake: FakeDriver) -> None:
    """Whatever Python there is around the kernels runs, at sizes that choose different ones."""
    for dim, rows in ((1, 0), (768, 1), (1025, 2), (8192, 33), (4096, 2)):
        for kind in (Kind(), Ours()):
            arrays = {
                key: kind.array(value, 0, False, False)
                for key, value in made(name, dim, rows).items()
            }
            fake.log.clear()
            OPERATIONS[name].run(arrays, "cuda")
            assert {entry[1] for entry in fake.log if entry[0] == "launch"} <= {1}
            assert not waits(fake)


def test_the_stream_of_an_array_is_waited_for_and_waits(fake: FakeDriver) -> None:
    found = k.softmax(Interface(X, stream=99))
    assert type(found).__name__ == "DeviceArray"
    done = [entry for entry in fake.log if entry[0] != "free"]
    assert done == [("wait", 1, 99), ("launch", 1), ("wait", 99, 1)]
    fake.log.clear()
    k.softmax(Interface(X, stream=1))
    k.softmax(Interface(X))
    assert not waits(fake)


def test_numbers_that_lie_apart_are_packed_first(fake: FakeDriver) -> None:
    k.softmax(Interface(spread(X), stream=7))
    assert fake.log[:3] == [("wait", 1, 7), ("launch", 1), ("launch", 1)]
    with pytest.raises(ValueError, match="out must be contiguous"):
        k.softmax(Interface(X), out=Interface(spread(X)))
    fixed = X.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        k.softmax(Interface(X), out=Interface(fixed))


def test_memory_goes_back_after_the_last_stream_that_worked_with_it(fake: FakeDriver) -> None:
    with k.StreamManager() as streams:
        with streams.use("copy") as copy:
            given = k.to_device(X)
        with streams.use("compute") as compute:
            found = k.softmax(given)
        assert waits(fake) == [(compute.handle, copy.handle)]
        fake.log.clear()
        del given
        gc.collect()
        assert fake.log == [("wait", copy.handle, compute.handle), ("free", copy.handle)]
        fake.log.clear()
        k.to_host(found)
        assert waits(fake) == [(1, compute.handle)]
        # a stream that is closed has been waited for
    fake.log.clear()
    del found
    gc.collect()
    assert not waits(fake)


def test_who_reads_our_array_is_told_its_stream(fake: FakeDriver) -> None:
    with k.StreamManager() as streams:
        with streams.use("own") as own:
            made = k.to_device(X)
        assert made.__cuda_array_interface__["stream"] == own.handle
    assert k.to_device(X).__cuda_array_interface__["stream"] == 1


def test_work_goes_to_the_gpu_of_the_arrays_and_the_users_is_current_again(
    fake: FakeDriver,
) -> None:
    fake.contexts[:] = [500]
    x = Interface(X)
    fake.where[x.address] = 1
    seen: list[int] = []
    real = fake._call

    def call(name: str, *given: Any) -> Any:
        if name == "cuLaunchKernel":
            seen.append(fake.contexts[-1])
        return real(name, *given)

    fake._call = call  # type: ignore[method-assign]
    found = k.relu(x)
    assert found.where.ordinal == 1
    assert k.relu(found).where.ordinal == 1
    k.relu(Interface(X.copy()))
    assert seen == [501, 501, 500]
    assert fake.contexts == [500]
    # a copy goes where the user's context is
    fake.contexts[:] = [501]
    assert k.to_device(X).where.ordinal == 1


def test_two_gpus_in_one_call_are_refused(fake: FakeDriver) -> None:
    a, b = Interface(X), Interface(X.copy())
    fake.where[b.address] = 1
    with pytest.raises(ValueError, match="a lies on GPU 0, and b on GPU 1: move one of them"):
        k.vector_add(a, b)
    with (
        k.StreamManager() as streams,
        streams.use("on the first"),
        pytest.raises(ValueError, match="the stream in use is on GPU 0, and the data on GPU 1"),
    ):
        k.relu(b)
    assert k.relu(b).where.ordinal == 1


def test_an_empty_array_is_on_every_gpu(fake: FakeDriver) -> None:
    v = Interface(X)
    fake.where[v.address] = 1
    values, _ = k.cosine_topk(Interface(X[:0]), v, 3)
    assert values.shape == (0, 3)
    assert values.where.ordinal == 1
    assert k.relu(Interface(X[:0])).shape == (0, 1024)


def test_a_graph_has_memory_of_its_own_and_replays_in_order(fake: FakeDriver) -> None:
    x = k.to_device(X)
    graph = k.capture(lambda: k.softmax(k.relu(x)))
    launches = [entry for entry in fake.log if entry[0] == "launch"]
    assert len(launches) == 4
    stream = launches[0][1]
    assert stream != 1
    fake.log.clear()
    graph.replay()
    assert fake.log == [("wait", stream, 1), ("wait", 1, stream)]
    assert graph.result.shape == X.shape
    fake.log.clear()
    k.relu(graph.result)
    assert waits(fake) == [(1, stream)]
    for sequence, said in [
        (lambda: k.to_host(k.relu(x)), "to the host cannot be recorded"),
        (lambda: k.vector_add(x, X), "from the host cannot be recorded"),
    ]:
        with pytest.raises(RuntimeError, match=said):
            k.capture(sequence)
    k.relu(x)


def test_a_sequence_that_changes_is_refused(fake: FakeDriver) -> None:
    x = [k.to_device(X), k.to_device(X[:2])]
    with pytest.raises(RuntimeError, match="it must do the same each time"):
        k.capture(lambda: k.relu(x.pop()))


def test_to_device_writes_into_what_there_is(fake: FakeDriver) -> None:
    y = k.to_device(np.zeros_like(X))
    assert k.to_device(X, out=y) is y
    np.testing.assert_array_equal(k.to_host(y), X)
    assert k.to_device(y) is y
    with pytest.raises(ValueError, match="out is float32"):
        k.to_device(X[:2], out=y)
    with pytest.raises(TypeError, match="out must be an array that to_device"):
        k.to_device(X, out=X)


def test_each_thread_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = FakeDriver(1)
    found.install(monkeypatch)
    from llcuda_kernels.cuda.runtime import device_memory, driver

    here = threading.local()
    monkeypatch.setattr(driver, "_here", here)
    monkeypatch.setattr(device_memory, "_here", here)
    x = k.to_device(X)
    other: list[Any] = []
    thread = threading.Thread(target=lambda: other.append(k.to_host(k.vector_add(x, x)).shape))
    thread.start()
    thread.join()
    assert other == [X.shape]
