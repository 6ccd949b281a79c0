"""`llcuda doctor`: what it finds, what it says of a kernel that is wrong, and its exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llcuda_kernels import selfcheck
from llcuda_kernels.runtime import device
from llcuda_kernels.selfcheck import Outcome
from llcuda_net.cli import doctor

NO_GPU = device.Gpu(False, "no NVIDIA driver is installed")
GPU = device.Gpu(True, "", "NVIDIA H0", (9, 0), "580.1", "13.0", 132, 139 << 30)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine is made to have: a GPU or none, and the kernels that are wrong."""
    state: dict[str, Any] = {"gpu": NO_GPU, "wrong": set(), "ran": []}

    def run(name: str, backend: str, seed: int | None = None) -> Outcome:
        state["ran"].append((name, backend, seed))
        if (name, backend) in state["wrong"]:
            return Outcome(name, backend, False, float("inf"), 0.1, "misses the reference")
        return Outcome(name, backend, True, 0.25, 0.1, "", 5e-7, 2e-6)

    monkeypatch.setattr(device, "gpu", lambda: state["gpu"])
    monkeypatch.setattr(selfcheck, "names", lambda: ["relu", "softmax"])
    monkeypatch.setattr(selfcheck, "run", run)
    return state


def test_a_machine_without_a_gpu_is_well(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "GPU        not used: no NVIDIA driver is installed" in out
    assert "kernels on the GPU: not run: no NVIDIA driver is installed" in out
    assert out.count("  ok  ") == 2
    assert out.count("error 5e-07, allowed 2e-06") == 2
    assert out.endswith("all is well\n")
    assert found["ran"] == [("relu", "cpu", 3), ("softmax", "cpu", 3)]


def test_both_backends_are_checked_where_there_is_a_gpu(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["gpu"] = GPU
    assert doctor.main([]) == 0
    assert "NVIDIA H0, compute capability 9.0, 132 multiprocessors, 139 GiB" in (
        capsys.readouterr().out
    )
    assert [backend for _, backend, _ in found["ran"]] == ["cpu", "cpu", "cuda", "cuda"]


def test_a_wrong_kernel_is_told_and_fails(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["wrong"] = {("softmax", "cpu")}
    assert doctor.main(["--backend", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "WRONG softmax" in out
    assert "misses the reference" in out
    assert out.endswith("1 of the kernels are wrong\n")


def test_a_gpu_that_is_wanted_and_not_there_is_an_error(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--backend", "cuda"]) == 1
    assert "the GPU is not used: no NVIDIA driver is installed" in capsys.readouterr().err


def test_json_is_an_object_a_line(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["wrong"] = {("relu", "cpu")}
    assert doctor.main(["--json"]) == 1
    machine, relu, softmax = map(json.loads, capsys.readouterr().out.splitlines())
    assert (machine["event"], machine["gpu"]["usable"]) == ("machine", False)
    assert machine["packages"]["numpy"]
    assert (relu["passed"], relu["miss"], softmax["passed"]) == (False, None, True)


def test_a_wrong_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--seed", "-1"]) == 2
    assert "--seed must be 0 or more" in capsys.readouterr().err


def test_a_real_kernel_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selfcheck, "names", lambda: ["relu", "list_statistics"])
    assert doctor.main(["--backend", "cpu"]) == 0
    assert capsys.readouterr().out.count("  ok  ") == 2
