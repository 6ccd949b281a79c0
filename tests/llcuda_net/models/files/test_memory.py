"""Estimates against what llama-server (build 11434) logged of the same shapes, in MiB."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.models.files import memory
from llcuda_net.models.files.memory import ALL_LAYERS, Bytes, Estimate, default_context, estimate
from llcuda_net.models.need import Need
from llcuda_net.upstream.model.gguf import Kind, ModelFile, Weights

MIB = 1 << 20


def shape(
    architecture: str = "llama",
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    kv: int | tuple[int, ...] = 12,
    forward: int = 2048,
    vocabulary: int = 32000,
    head: int = 0,
    **more: Any,
) -> ModelFile:
    head = head or (width // heads if heads else 0)
    numbers = {
        "feed_forward_length": forward,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "attention.key_length": head,
        "attention.value_length": head,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    weights = Weights((4 * MIB,) * layers, embedding=10 * MIB, other=MIB)
    return ModelFile(
        parts=(Path("x.gguf"),),
        size=weights.total,
        architecture=architecture,
        name="x",
        trained_context=131072,
        pooling=None,
        layers=layers,
        embedding_length=width,
        vocabulary=vocabulary,
        weights=weights,
        numbers=numbers,
    )


MHA = shape()
SMOL = shape(layers=30, width=576, heads=9, kv=3, forward=1536, vocabulary=49152)
WIDE = shape(layers=16, width=2048, heads=32, kv=8, forward=8192, vocabulary=128256)
QWEN2 = shape("qwen2", layers=24, width=896, heads=14, kv=2, forward=4864, vocabulary=151936)
QWEN3 = shape("qwen3", layers=28, width=1024, heads=16, kv=8, head=128, forward=3072)
HEADS = shape("qwen3", layers=6, width=1024, heads=64, kv=8, head=128, forward=1024)
GEMMA3 = shape(*("gemma3", 18, 640, 4, 1, 2048, 262144, 256), attention__sliding_window=512)
MOE = shape(
    *("qwen3moe", 4, 2048, 32, 4, 6144, 151936, 128),
    expert_count=32,
    expert_used_count=8,
    expert_feed_forward_length=768,
)
MAMBA = shape(
    *("mamba", 24, 768, 0, 0, 0, 50280),
    ssm__conv_kernel=4,
    ssm__inner_size=1536,
    ssm__state_size=16,
)
LFM2 = shape(
    *("lfm2", 16, 1024, 16, tuple(8 if i in (2, 5, 8, 10, 12, 14) else 0 for i in range(16))),
    forward=4608,
    vocabulary=65536,
    shortconv__l_cache=3,
)
DEEPSEEK2 = shape(
    *("deepseek2", 8, 1024, 16, 1, 4096),
    attention__key_length=576,
    attention__value_length=512,
    attention__key_length_mla=192,
)
BERT = shape("bert", 12, 384, 12, 12, 1536, 30522)


@dataclass
class Case:
    """A shape, how it was started, and the sizes that the engine logged."""

    model: ModelFile
    ctx: int
    slots: int
    cache: float
    compute: float
    options: dict[str, Any] = field(default_factory=dict)


APART = {"unified": False}
SHORT = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
#: `llama-server -c CTX*SLOTS -np SLOTS [-kvu|-no-kvu] …`: "KV buffer size", "RS buffer size" and
#: "compute buffer size".
LOGGED = [
    Case(SMOL, 2048, 1, 45.0, 16.64, APART),
    Case(SMOL, 8192, 4, 720.0, 46.64),
    Case(SMOL, 8192, 4, 382.5, 22.65, APART | SHORT),
    Case(MHA, 2048, 2, 144.0, 21.52, APART),
    Case(MHA, 16384, 4, 648.0, 83.52, {"cache_type_k": "q4_0", "cache_type_v": "q4_0"}),
    Case(MHA, 2048, 2, 144.0, 74.02, {"embeddings": True}),
    Case(WIDE, 2048, 2, 128.0, 70.02, APART),
    Case(WIDE, 8192, 4, 544.0, 100.02, SHORT),
    Case(QWEN2, 2048, 2, 48.0, 41.27),
    Case(QWEN2, 2048, 8, 102.0, 53.30, SHORT),
    Case(QWEN2, 512, 32, 192.0, 37.77, APART),
    Case(QWEN2, 2048, 2, 48.0, 78.54, APART | {"batch": 1024}),
    Case(QWEN2, 2048, 2, 48.0, 71.01, APART | {"flash_attention": False}),
    Case(QWEN3, 2048, 2, 448.0, 30.02, APART),
    Case(HEADS, 2048, 2, 96.0, 44.02, APART),
    Case(GEMMA3, 2048, 2, 42.0, 21.28, APART),
    Case(GEMMA3, 16384, 4, 229.5, 84.8),
    Case(MOE, 2048, 2, 32.0, 90.02, APART),
    Case(MAMBA, 2048, 2, 5.34, 22.73, APART),
    Case(LFM2, 2048, 2, 48.16, 39.02, APART),
    Case(LFM2, 16384, 4, 408.3, 101.0, SHORT),
    Case(DEEPSEEK2, 2048, 2, 36.0, 52.01, APART),
    Case(BERT, 512, 2, 0.0, 7.26, APART),
]


@pytest.mark.parametrize("case", LOGGED, ids=lambda case: f"{case.model.architecture}-{case.ctx}")
def test_the_cache_is_what_the_engine_logs(case: Case) -> None:
    need = estimate(case.model, ctx=case.ctx, slots=case.slots, **case.options)
    assert need.cache.host / MIB == pytest.approx(case.cache, rel=0.001, abs=0.01)


@pytest.mark.parametrize("case", LOGGED, ids=lambda case: f"{case.model.architecture}-{case.ctx}")
def test_the_compute_buffer_is_not_much_less_nor_more(case: Case) -> None:
    need = estimate(case.model, ctx=case.ctx, slots=case.slots, **case.options)
    assert 0.98 * case.compute < need.compute.host / MIB < 1.3 * case.compute + 8


def test_layers_that_keep_nothing_of_their_own() -> None:
    """The last ones of Gemma 3n and 4 use the cache of others; heads that predict have none."""
    whole = estimate(shape(), ctx=4096, slots=1).cache.host
    for model in (
        shape(attention__shared_kv_layers=3),
        shape(nextn_predict_layers=3),
    ):
        assert estimate(model, ctx=4096, slots=1).cache.host == whole * 9 // 12
    gemma3n = estimate(shape("gemma3n", layers=30), ctx=4096, slots=1).cache.host
    assert gemma3n == whole * 20 // 12


def test_a_longer_context_never_needs_less() -> None:
    for model in {id(case.model): case.model for case in LOGGED}.values():
        needs = [estimate(model, ctx=2**n, slots=2).host for n in range(1, 20)]
        assert needs == sorted(needs)


def test_layers_on_a_gpu() -> None:
    """As llama.cpp counts them: the output is one, and the last layers go first."""
    none = estimate(MHA, ctx=4096, slots=2)
    assert none.gpu == 0
    output = estimate(MHA, ctx=4096, slots=2, gpu_layers=1)
    assert output.weights == Bytes(MHA.weights.total, MHA.weights.embedding)  # a copy: it is tied
    assert output.cache.gpu == 0
    some = estimate(MHA, ctx=4096, slots=2, gpu_layers=5)
    assert some.weights.gpu == 10 * MIB + 4 * 4 * MIB
    assert some.weights.host == MHA.weights.total - 4 * 4 * MIB
    assert some.cache.gpu == none.cache.host * 4 // 12
    assert some.cache.gpu + some.cache.host == none.cache.host
    whole = estimate(MHA, ctx=4096, slots=2, gpu_layers=ALL_LAYERS)
    assert whole.weights == Bytes(11 * MIB, (4 * 12 + 10) * MIB)
    assert whole.cache == Bytes(0, none.cache.host)
    assert whole.compute.gpu == none.compute.host
    assert whole.compute.host < none.compute.host / 2
    assert whole.host + whole.gpu > none.host


def test_what_is_loaded_beside_the_model() -> None:
    plain = estimate(MHA, ctx=4096, slots=2)
    more = estimate(MHA, ctx=4096, slots=2, lora=7 * MIB, mmproj=100 * MIB, prompt_cache=9)
    assert more.weights.host - plain.weights.host == 107 * MIB
    assert (plain.growth, more.growth) == (0, 9)
    drafted = estimate(MHA, ctx=4096, slots=2, draft=SMOL)
    assert drafted.weights.host == plain.weights.host + SMOL.weights.total
    assert drafted.cache.host == plain.cache.host + estimate(SMOL, ctx=4096, slots=2).cache.host
    on_gpu = estimate(MHA, ctx=4096, slots=2, gpu_layers=99, draft=SMOL, draft_gpu_layers=0)
    assert on_gpu.weights.host == 11 * MIB + SMOL.weights.total
    images = estimate(MHA, ctx=4096, slots=2, gpu_layers=99, mmproj=100 * MIB)
    assert images.weights.gpu == estimate(MHA, ctx=4096, slots=2, gpu_layers=99).weights.gpu + (
        100 * MIB
    )


def test_an_embedding_that_is_copied_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(type_: str) -> int:
        tied = Weights((MIB,) * 12, embedding=10 * MIB, embedding_type=type_)
        model = ModelFile(**{**_fields(MHA), "weights": tied, "size": tied.total})
        return estimate(model, ctx=512, slots=1).weights.host

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert weights("Q4_0") == 32 * MIB
    assert weights("Q6_K") == 22 * MIB
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert weights("Q6_K") == 32 * MIB


def _fields(model: ModelFile) -> dict[str, Any]:
    return {name: getattr(model, name) for name in ModelFile.__slots__}


def test_what_may_be_kept_to_go_back_to() -> None:
    """A window's, and a state's: 32 checkpoints for each slot; plain layers need none."""
    assert estimate(MHA, ctx=4096, slots=2).growth == 0
    window = estimate(GEMMA3, ctx=16384, slots=1, unified=False)
    assert window.growth == 32 * 15 * MIB  # 15 layers, 1024 cells
    state = estimate(MAMBA, ctx=16384, slots=1)
    assert state.growth == 32 * state.cache.host


def test_tensors_of_an_unknown_type_go_by_the_file() -> None:
    model = ModelFile(**{**_fields(MHA), "size": 1000 * MIB})
    assert estimate(model, ctx=512, slots=1).weights.host == 1000 * MIB
    whole = estimate(model, ctx=512, slots=1, gpu_layers=ALL_LAYERS)
    assert whole.weights.gpu > 900 * MIB


def test_a_header_that_says_nothing_or_nonsense() -> None:
    bare = ModelFile((Path("x"),), 5, "", "", None, None)
    assert estimate(bare, ctx=4096, slots=4).cache.host == 0
    odd = shape(kv=(2**31,) * 3, heads=0, attention__sliding_window=-5, expert_used_count=10**9)
    assert estimate(odd, ctx=4096, slots=4, gpu_layers=3).host > 0


def test_a_cache_of_no_such_type_is_refused() -> None:
    with pytest.raises(ValueError, match="'q9' is no type of a KV cache: f32, f16"):
        estimate(MHA, ctx=4096, slots=4, cache_type_v="q9")


def test_the_context_where_none_is_asked_for() -> None:
    assert default_context(MHA) == 4096
    assert default_context(ModelFile(**{**_fields(MHA), "trained_context": 512})) == 512
    assert default_context(ModelFile(**{**_fields(MHA), "trained_context": None})) == 4096


def test_needs_add_up() -> None:
    one = Estimate(Bytes(1, 2), Bytes(3, 4), Bytes(5, 6), Bytes(7, 8), 9)
    both = one + one
    assert (both.need, both.growth) == (Need(32, 40), 18)
    assert memory.SLOTS == 4
    assert MHA.kind is Kind.CHAT
