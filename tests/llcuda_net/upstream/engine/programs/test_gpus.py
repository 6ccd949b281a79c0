"""Which GPUs a machine has, by its files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llcuda_net.upstream.engine.programs.gpus import Gpus, find_gpus


def with_driver(root: Path, *models: str) -> None:
    for number, model in enumerate(models):
        folder = root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 35\n")


def with_device(root: Path, name: str) -> None:
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).touch()


def test_of_the_driver(tmp_path: Path) -> None:
    with_driver(tmp_path, "NVIDIA H200", "NVIDIA L4")
    found = find_gpus(tmp_path, {})
    assert found.nvidia == ("NVIDIA H200", "NVIDIA L4")
    assert found.any


@pytest.mark.parametrize(
    ("value", "hidden"), [("", True), ("-1", True), ("0", False), ("GPU-1", 0)]
)
def test_hidden_from_cuda(tmp_path: Path, value: str, hidden: bool) -> None:
    with_driver(tmp_path, "NVIDIA H200")
    found = find_gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": value})
    assert found.hidden == hidden
    assert found.any != hidden or found.other


def test_in_a_container_without_proc(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        with_device(tmp_path, name)
    assert find_gpus(tmp_path, {}).nvidia == ("NVIDIA GPU",) * 2


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has a GPU")
def test_of_others(tmp_path: Path) -> None:
    assert find_gpus(tmp_path, {}) == Gpus()
    assert not find_gpus(tmp_path, {}).any
    with_device(tmp_path, "dri")
    assert find_gpus(tmp_path, {}) == Gpus(other=True)
