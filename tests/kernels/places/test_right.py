"""The same behaviour on the CPU and on a GPU, where it was not: sizes, values, order, graphs.

What takes `backend` runs on the CPU everywhere, and on a GPU where there is one.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import llcuda_kernels as k
from llcuda_kernels import reference, selfcheck
from tests.support.kernels import kinds
from tests.support.kernels.weights import make

gpu = k.gpu()
needs_gpu = pytest.mark.gpu
both = pytest.mark.parametrize("backend", ["cpu", pytest.param("cuda", marks=needs_gpu)])


@pytest.mark.parametrize(
    ("backend", "dim"),
    [
        ("cpu", 11_832),
        *(
            pytest.param("cuda", dim, marks=needs_gpu)
            for dim in (11_831, 11_832, 11_900, 12_288, 30_000, 70_000)
        ),
    ],
)
@pytest.mark.parametrize("queries", [1, 2])
@pytest.mark.parametrize("kind", [np.int8, np.float32])
def test_queries_too_long_for_shared_memory(
    dim: int, queries: int, kind: Any, backend: Any
) -> None:
    rng = np.random.default_rng(dim)
    q, v = rng.integers(-127, 128, (queries, dim)), rng.integers(-127, 128, (40, dim))
    for best in (3, 300):
        values, rows = k.cosine_topk(q.astype(kind), v.astype(kind), best, backend=backend)
        scores = reference.search.cosine_scores(q, v)
        assert selfcheck.topk_miss(values, rows, scores, best, 5e-6) <= 1


@needs_gpu
@pytest.mark.parametrize("dim", [4096, 5120, 8192])
def test_a_large_store_is_scanned_with_several_queries(dim: int) -> None:
    rng = np.random.default_rng(dim)
    v = rng.integers(-127, 128, (300_000, dim), dtype=np.int8)
    values, rows = k.cosine_topk(v[[7, 70_000, 5]], v, 4, backend="cuda")
    np.testing.assert_array_equal(rows[:, 0], [7, 70_000, 5])
    np.testing.assert_allclose(values[:, 0], 1.0, rtol=1e-5)


@both
def test_many_rows_of_token_statistics(backend: Any) -> None:
    x = np.random.default_rng(1).standard_normal((70_000, 50)).astype(np.float32)
    chosen = np.arange(70_000) % 60 - 5
    got = k.token_statistics(x, chosen, k=3, backend=backend)
    want = reference.tokens.token_statistics(x, chosen, 3)
    assert selfcheck.miss_of(got.entropy, want.entropy, 3e-5, 3e-5) <= 1
    assert selfcheck.miss_of(got.surprisal, want.surprisal, 1e-5, 1e-5) <= 1
    np.testing.assert_array_equal(got.top_indices, want.top_indices)


@both
def test_a_token_that_is_not_in_the_vocabulary_has_no_surprisal(backend: Any) -> None:
    x = np.zeros((4, 8), np.float32)
    got = k.token_statistics(x, np.array([-1, 7, 8, 2**40]), backend=backend).surprisal
    np.testing.assert_array_equal(np.isnan(got), [True, False, True, True])


@both
@pytest.mark.parametrize("kernel", ["tiled", "fast", "int8"])
def test_tall_matrices(kernel: Any, backend: Any) -> None:
    rows = {"tiled": 1_048_577, "fast": 8_388_481, "int8": 4_194_305}[kernel]
    rows = rows if backend == "cuda" else 1000
    a = (np.arange(4 * rows, dtype=np.int64) % 7 - 3).reshape(rows, 4)
    b = np.array([[1], [2], [-1], [3]])
    if kernel == "int8":
        given = a.astype(np.int8), b.T.astype(np.int8)
        got = k.matmul_int8(*given, kernel="dp4a", backend=backend)
    else:
        given = a.astype(np.float32), b.astype(np.float32)
        got = k.matmul(*given, kernel=kernel, backend=backend)
    np.testing.assert_array_equal(got, a @ b)


@both
@pytest.mark.parametrize("layout", ["awq", "gptq"])
def test_more_rows_of_int4_than_a_grid_is_high(layout: Any, backend: Any) -> None:
    inner = 8 * (65_535 + 3) if backend == "cuda" else 8 * 40
    q, z, s, _ = make(64, 8, 1, layout, 3)
    repeat = -(-inner // 64)
    q = np.tile(q, (repeat, 1))[: inner if layout == "awq" else inner // 8]
    got = k.dequantize_int4(q, z, s, layout=layout, backend=backend)
    want = reference.weights.int4.dequantize_int4(q, z, s, layout)
    assert selfcheck.miss_of(got, want, 1e-6, 1e-12) <= 1


@both
@pytest.mark.parametrize("layout", ["awq", "gptq"])
@pytest.mark.parametrize("what", [np.inf, -np.inf, np.nan])
def test_int4_times_infinity(layout: Any, what: float, backend: Any) -> None:
    for inner, columns, groups in [(8, 8, 1), (256, 136, 4), (1024, 520, 8)]:
        q, z, s, _ = make(inner, columns, groups, layout, 5)
        x = np.random.default_rng(2).standard_normal(inner).astype(np.float32)
        x[inner // 2] = what
        got = k.int4_times_vector(x, q, z, s, layout=layout, backend=backend)
        want = reference.weights.int4.int4_times_vector(x, q, z, s, layout)
        assert np.isinf(want).any() == np.isinf(what)
        assert selfcheck.miss_of(got, want, 1e-5, 1e-5) <= 1


@both
@pytest.mark.parametrize("length", [1, 7, 768, 4096, 12_004])
def test_rms_norm_of_the_smallest_and_the_greatest(length: int, backend: Any) -> None:
    base = np.random.default_rng(3).uniform(-1, 1, (1, length)).astype(np.float32)
    base[0, 0] = 1
    sizes = np.array([1e-44, 1e-38, 1e-23, 1e-10, 1, 1e10, 1e23, 1e38], np.float64)
    x = (base * sizes[:, None]).astype(np.float32)
    for eps in (0.0, 1e-30, 1e-12, 1e-6, 1.0):
        got = k.rms_norm(x, eps=eps, backend=backend)
        want = reference.norms.rms_norm(x, eps=float(np.float32(eps)))
        assert selfcheck.miss_of(got, want, 3e-5, 1e-37) <= 1
    zero = k.rms_norm(np.zeros((2, length), np.float32), eps=0.0, backend=backend)
    assert np.isnan(zero).all()


def test_rms_norm_refuses_a_negative_eps() -> None:
    with pytest.raises(ValueError, match="eps must not be negative"):
        k.rms_norm(np.ones((1, 4), np.float32), eps=-1.0, backend="cpu")


@both
@pytest.mark.parametrize("best", [5, 200])
def test_zeros_of_either_sign_are_equal(best: int, backend: Any) -> None:
    x = np.zeros((3, 20_000), np.float32)
    x[:, ::2] = -0.0
    x[1], x[2, 100:] = -x[1], -1
    got = k.token_statistics(x, k=best, backend=backend)
    want = reference.tokens.token_statistics(x, None, best)
    np.testing.assert_array_equal(got.top_indices, want.top_indices)
    # a query whose products are zeros of either sign
    v = np.zeros((400, 4), np.float32)
    v[:, 0], v[:, 1] = np.where(np.arange(400) % 2, -1, 1), 1
    for kind in (np.float32, np.int8):
        q = np.array([[0, 0, 1, 0]], kind)
        _, rows = k.cosine_topk(q, v.astype(kind), best, backend=backend)
        np.testing.assert_array_equal(rows[0], np.arange(best))


@both
def test_a_sum_of_nothing_is_written_to_out(backend: Any) -> None:
    out = np.full((3, 4), 7, np.float32)
    got = k.matmul(np.empty((3, 0), np.float32), np.empty((0, 4), np.float32), out=out,
                   backend=backend)  # fmt: skip
    assert got is out
    assert not out.any()


@needs_gpu
@pytest.mark.parametrize("kind", kinds.on_gpu() if gpu.usable else [], ids=lambda kind: kind.name)
def test_out_is_what_comes_back(kind: Any) -> None:
    x = np.linspace(-3, 3, 5000, dtype=np.float32)
    given, out = (kind.array(a, 0, False, False) for a in (x, np.full_like(x, np.nan)))
    assert k.relu(given, out=out, backend="cuda") is out
    np.testing.assert_array_equal(kind.numpy(out), np.maximum(x, 0))
    if kind.name in ("CuPy", "PyTorch"):
        with pytest.raises(ValueError, match="out must be contiguous"):
            k.relu(given, out=kind.array(x, 0, True, False))
    if kind.name != "NumPy":
        with pytest.raises(TypeError, match="out lies in the host's memory"):
            k.relu(given, out=np.empty_like(x))


@needs_gpu
@pytest.mark.parametrize("name", ["CuPy", "PyTorch"])
def test_memory_given_back_while_it_is_read_is_not_given_away(name: str) -> None:
    """The operation waits on a stream of ours; meanwhile its input is freed and taken again."""
    kind = next((each for each in kinds.on_gpu() if each.name == name), None)
    if kind is None:
        pytest.skip(f"no {name}")
    x = np.random.default_rng(4).standard_normal((512, 4096)).astype(np.float32)
    want = reference.norms.softmax(x)
    seeds = k.to_device(np.arange(1, 1 << 16, dtype=np.uint32))
    with k.StreamManager() as streams:
        for _ in range(10):
            with kind.stream(0):
                given = kind.array(x, 0, False, False)
                with streams.use("ours"):
                    k.spin(seeds, 200_000)  # keeps the stream busy
                    found = k.softmax(given)
                del given
                gc.collect()
                other = [kind.array(np.full_like(x, np.nan), 0, False, False) for _ in range(3)]
                assert selfcheck.miss_of(kind.numpy(found), want, 2e-5, 1e-9) <= 1
                del other


@needs_gpu
def test_our_memory_waits_for_the_last_stream_that_read_it() -> None:
    x = np.random.default_rng(5).standard_normal((512, 4096)).astype(np.float32)
    want = reference.norms.softmax(x)
    seeds = k.to_device(np.arange(1, 1 << 16, dtype=np.uint32))
    with k.StreamManager() as streams:
        for _ in range(10):
            with streams.use("copy"):
                given = k.to_device(x)
            with streams.use("compute"):
                k.spin(seeds, 200_000)
                found = k.softmax(given)
            del given
            with streams.use("copy"):
                other = [k.to_device(np.full_like(x, np.nan)) for _ in range(3)]
            assert selfcheck.miss_of(k.to_host(found), want, 2e-5, 1e-9) <= 1
            del other


@needs_gpu
def test_a_pool_is_ordered_by_streams_too() -> None:
    x = np.random.default_rng(6).standard_normal((64, 4096)).astype(np.float32)
    want = reference.norms.softmax(x)
    pool = k.MemoryPool(limit=1 << 26)
    with k.StreamManager() as streams, pool.use():
        for _ in range(20):
            with streams.use("copy"):
                given = k.to_device(x)
            with streams.use("compute"):
                found = k.softmax(k.relu(k.softmax(given)))
                found = k.softmax(given)
            del given
            with streams.use("copy"):
                other = k.to_device(np.full_like(x, np.nan))
            assert selfcheck.miss_of(k.to_host(found), want, 2e-5, 1e-9) <= 1
            del other
    del found
    gc.collect()
    assert pool.statistics().in_use == 0


@needs_gpu
@pytest.mark.parametrize("name", ["DeviceArray", "CuPy", "PyTorch"])
def test_a_graph_of_a_whole_sequence(name: str) -> None:
    """Normalise, quantise, search, with nothing given to write to."""
    kind = next((each for each in kinds.on_gpu() if each.name == name), None)
    if kind is None:
        pytest.skip(f"no {name}")
    rng = np.random.default_rng(7)
    v = rng.integers(-127, 128, (5000, 768)).astype(np.int8)
    vectors = kind.array(v, 0, False, False)
    q = rng.standard_normal((3, 768)).astype(np.float32)
    queries = kind.array(q, 0, False, False)

    def sequence() -> Any:
        codes, _ = k.normalize_quantize(k.l2_normalize(queries))
        return k.cosine_topk(codes, vectors, 5)

    graph = k.capture(sequence)
    for _ in range(3):
        q = rng.standard_normal((3, 768)).astype(np.float32)
        if name == "DeviceArray":
            k.to_device(q, out=queries)
        elif name == "CuPy":
            queries[...] = kind.array(q, 0, False, True)
        else:
            queries.copy_(kind.array(q, 0, False, True))
        graph.replay()
        codes, _ = reference.quantize.normalize_quantize(reference.norms.l2_normalize(q))
        scores = reference.search.cosine_scores(codes, v)
        values, rows = (kind.numpy(part) for part in graph.result)
        assert selfcheck.topk_miss(values, rows, scores, 5, 2e-3) <= 1
        again = [kind.numpy(part) for part in sequence()]
        np.testing.assert_array_equal(again[1], rows)


@needs_gpu
def test_what_cannot_be_recorded_is_told() -> None:
    x = k.to_device(np.ones(10, np.float32))
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        k.capture(lambda: k.to_host(k.relu(x)))
    np.testing.assert_array_equal(k.to_host(k.relu(x)), np.ones(10, np.float32))


@needs_gpu
def test_torch_records_ours_in_its_graphs() -> None:
    torch = pytest.importorskip("torch")
    x = torch.linspace(-3, 3, 4096, device="cuda").reshape(4, 1024)
    k.softmax(k.relu(x))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = k.softmax(k.relu(x))
    x.neg_()
    graph.replay()
    want = torch.softmax(torch.relu(x), 1)
    assert torch.allclose(y, want, atol=1e-6)


@needs_gpu
def test_two_gpus_in_one_call_are_refused() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    a, b = (torch.ones(4, device=f"cuda:{i}") for i in range(2))
    with pytest.raises(ValueError, match="a lies on GPU 0, and b on GPU 1: move one of them"):
        k.vector_add(a, b)
    # and nothing is broken by it; the current GPU is again what it was
    assert k.vector_add(b, b).device.index == 1
    assert torch.cuda.current_device() == 0
    assert k.vector_add(a, a).device.index == 0


@needs_gpu
@pytest.mark.parametrize("strided", [False, True])
def test_arrays_of_other_libraries(strided: bool) -> None:
    """DLPack and nothing else, the CUDA array interface and nothing else, and Numba's arrays."""
    torch = pytest.importorskip("torch")
    cuda = pytest.importorskip("numba.cuda")
    x = np.random.default_rng(8).standard_normal((33, 1536)).astype(np.float32)
    want = reference.norms.softmax(x)
    kind = kinds.Torch()
    for _ in range(5):
        with torch.cuda.stream(torch.cuda.Stream()):
            given = kind.array(x, 0, strided, True)
            found = k.softmax(kinds.Exchanged(given))
            assert selfcheck.miss_of(k.to_host(found), want, 2e-5, 1e-9) <= 1
        found = k.softmax(kinds.Faced(kind.array(x, 0, strided, False)))
        assert selfcheck.miss_of(k.to_host(found), want, 2e-5, 1e-9) <= 1
    wide = cuda.to_device(kinds.spread(x).base if strided else x)
    found = k.softmax(wide[:, ::2] if strided else wide)
    assert type(found).__module__.startswith("numba")
    assert selfcheck.miss_of(found.copy_to_host(), want, 2e-5, 1e-9) <= 1


@needs_gpu
def test_gradients_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for device in ("cpu", "cuda"):
        with pytest.raises(TypeError, match=r"x\.detach\(\)"):
            k.relu(torch.ones(4, device=device, requires_grad=True))
