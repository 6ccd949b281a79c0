"""Compiled kernels are kept by what they were made of, and nothing else is taken for them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernels import compile_cache
from tests.support.kernels.compile_cache import KEEP_DAYS, CompileCache, key
from tests.support.kernels.compiling import Output, compile_kernel, kernels, read
from tests.support.kernels.import_graph import modules, reached

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NVIDIA's compiler is for Linux"
)


@pytest.fixture
def spin() -> Any:
    return kernels()["spin"]


def test_the_output_that_was_kept_says_the_same(tmp_path: Path, spin: Any) -> None:
    cache = CompileCache(tmp_path / "new")
    output = compile_kernel("spin", (8, 0))
    assert cache.get(key(spin, (8, 0))) is None
    cache.put(key(spin, (8, 0)), output)
    kept = cache.get(key(spin, (8, 0)))
    assert kept == output
    assert read(kept) == read(output)
    assert read(kept).registers > 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [key(spin, (8, 0))]


def test_spills_are_read_from_what_was_kept(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path)
    said = "4 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\nUsed 33 registers"
    cache.put("k", Output("ld.local.u32\n", said))
    kept = cache.get("k")
    assert kept is not None
    found = read(kept)
    assert (found.registers, found.spilled, found.forbidden) == (33, 20, ["local memory"])


def test_the_key_changes_with_all_that_a_kernel_is_made_of(
    monkeypatch: pytest.MonkeyPatch, spin: Any
) -> None:
    keys = [key(spin, (8, 0)), key(spin, (9, 0)), key(kernels()["post"], (8, 0))]
    with monkeypatch.context() as patch:
        patch.setattr(spin, "bounds", 128)
        keys.append(key(spin, (8, 0)))
    with monkeypatch.context() as patch:
        patch.setattr(spin, "signature", spin.signature[:-1])
        keys.append(key(spin, (8, 0)))
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "compilers", lambda: "numba-cuda 9")
        keys.append(key(spin, (8, 0)))
    with monkeypatch.context() as patch:
        patch.setattr(compile_cache, "_source", lambda module: "another source")
        keys.append(key(spin, (8, 0)))
    assert len(set(keys)) == 7
    assert key(spin, (8, 0)) == keys[0]


def test_the_source_is_that_of_all_modules_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = reached("cuda.tokens")
    assert {"cuda.tokens", "cuda.primitives.topk", "cuda.runtime.instructions"} <= below
    assert "cuda.weights" not in below
    changed = tmp_path / "topk.py"
    paths = modules()
    changed.write_bytes(paths["cuda.primitives.topk"].read_bytes() + b"#")
    source = compile_cache._source.__wrapped__
    tokens, weights = source("cuda.tokens"), source("cuda.weights")
    monkeypatch.setattr(
        compile_cache, "modules", lambda: {**paths, "cuda.primitives.topk": changed}
    )
    assert source("cuda.tokens") != tokens
    assert source("cuda.weights") == weights


def test_the_compilers_versions_are_known() -> None:
    assert "numba-cuda 0.30" in compile_cache.compilers()
    assert "nvidia-cuda-nvcc 13.0" in compile_cache.compilers()


@pytest.mark.parametrize("torn", [b"", b"nonsense", b"x\x9cKL\x04\x00"])
def test_a_torn_file_counts_as_none(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "k").write_bytes(torn)
    assert CompileCache(tmp_path).get("k") is None


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CompileCache(tmp_path / "file")
    cache.put("k", Output("a", "b"))
    cache.forget_unused()
    assert cache.get("k") is None


def test_what_was_not_used_for_long_is_forgotten(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path)
    for name in ("used", "unused"):
        cache.put(name, Output(name, ""))
        os.utime(tmp_path / name, (0, 0))
    assert cache.get("used") is not None
    cache.forget_unused()
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    cache.forget_unused(time.time() + (KEEP_DAYS + 1) * 86400)
    assert not list(tmp_path.iterdir())
