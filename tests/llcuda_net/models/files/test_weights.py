"""All of a model's weights, looked at: by files that the `gguf` package wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llcuda_net.models.files import weights
from llcuda_net.models.files.weights import TensorCheck, check_weights
from llcuda_net.upstream.model.gguf import read_model_file

Type = gguf.GGMLQuantizationType
RNG = np.random.default_rng(1)
PLAIN = RNG.standard_normal((6, 512)).astype(np.float32)


def blocks(kind: Type, rows: int = 6, numbers: int = 512) -> np.ndarray[Any, Any]:
    """Random blocks whose scales are small numbers."""
    size, width = gguf.GGML_QUANT_SIZES[kind]
    made = RNG.integers(0, 256, (rows, numbers // size, width)).astype(np.uint8)
    for at in {Type.Q4_K: (0, 2), Type.Q6_K: (208,), Type.Q4_1: (0, 2)}.get(kind, (0,)):
        made[..., at : at + 2] = np.full((1, 1, 1), 0.01, np.float16).view(np.uint8)
    return made.reshape(rows, -1)


def write(path: Path, tensors: dict[str, tuple[Any, Type | None]]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def look(path: Path) -> list[TensorCheck]:
    model = read_model_file(path)
    read: list[int] = []
    found = list(check_weights(model, read.append, "cpu"))
    assert sum(read) == model.weights.total
    return found


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q8_0, Type.Q4_K, Type.Q6_K, Type.Q4_1, Type.BF16])
def test_statistics_are_those_of_the_numbers_that_the_gguf_package_reads(
    tmp_path: Path, kind: Type
) -> None:
    raw = blocks(kind) if kind != Type.BF16 else gguf.quants.quantize(PLAIN, kind)
    want = gguf.dequantize(raw, kind).astype(np.float64)
    (found,) = look(write(tmp_path / "m.gguf", {"blk.0.w": (raw, kind)}))
    assert (found.name, found.kind, found.shape) == ("blk.0.w", kind.name, (512, 6))
    assert not found.problem
    assert found.numbers == want.size
    assert found.least == want.min()
    assert found.greatest == want.max()
    assert found.mean == pytest.approx(want.mean(), rel=1e-6)
    assert found.rms == pytest.approx(np.sqrt((want**2).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_plain_numbers(tmp_path: Path, kind: Any) -> None:
    (found,) = look(write(tmp_path / "m.gguf", {"w": (PLAIN.astype(kind), None)}))
    assert found.kind == f"F{8 * np.dtype(kind).itemsize}"
    assert found.greatest == pytest.approx(float(PLAIN.max()), rel=1e-3)
    assert not found.problem


def test_tensors_of_many_parts_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = blocks(Type.Q4_K)
    path = write(tmp_path / "m.gguf", {"w": (raw, Type.Q4_K), "b": (PLAIN[0, :7], None)})
    whole = look(path)
    monkeypatch.setattr(weights, "_AT_ONCE", 768)
    for got, want in zip(look(path), whole, strict=True):
        assert (got.least, got.greatest, got.absurd) == (want.least, want.greatest, want.absurd)
        assert got.rms == pytest.approx(want.rms, rel=1e-6)


def test_a_scale_that_is_nan_or_infinite_is_told(tmp_path: Path) -> None:
    nan, infinite = blocks(Type.Q8_0), blocks(Type.Q8_0)
    nan[2, :2] = np.array([np.nan], np.float16).view(np.uint8)
    infinite[1, 34:36] = np.array([np.inf], np.float16).view(np.uint8)
    infinite[1, 36:68] = 5  # of no number is 0 times infinity
    found = look(write(tmp_path / "m.gguf", {"a": (nan, Type.Q8_0), "b": (infinite, Type.Q8_0)}))
    assert [check.problem for check in found] == ["32 NaN", "32 infinite"]
    assert np.isfinite([found[0].mean, found[0].rms, found[1].greatest]).all()


def test_a_scale_with_a_flipped_bit_is_told(tmp_path: Path) -> None:
    raw = blocks(Type.Q4_K)
    raw[3, 1] ^= 0x40  # the highest bit of d's exponent
    (found,) = look(write(tmp_path / "m.gguf", {"w": (raw, Type.Q4_K)}))
    assert found.problem == "1 absurd run of 256"


def test_large_numbers_that_all_are_so_are_not_absurd(tmp_path: Path) -> None:
    (found,) = look(write(tmp_path / "m.gguf", {"w": (PLAIN * 1e30, None)}))
    assert not found.problem
    assert found.rms == pytest.approx(1e30, rel=0.1)


def test_a_tensor_without_numbers(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", {"w": (PLAIN[:0], None), "v": (PLAIN, None)})
    assert not any(check.problem for check in look(tmp_path / "m.gguf"))


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path / "m.gguf",
        {"i": (np.arange(8, dtype=np.int32), None), "q": (blocks(Type.Q4_1), Type.Q4_1)},
    )
    integers, read = look(path)
    assert "does not read" in integers.skipped
    assert not read.skipped
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    assert look(path)[1].skipped == "Q4_1 needs the package gguf: pip install gguf"
