"""`llcuda doctor`: what it finds, what it says of a kernel that is wrong, and its exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llcuda_kernels import selfcheck
from llcuda_kernels.runtime import device, kept
from llcuda_kernels.selfcheck import Outcome
from llcuda_net.cli import doctor
from llcuda_net.upstream.engine.programs import gpus, probe
from llcuda_net.upstream.engine.programs.gpus import Gpus
from llcuda_net.upstream.engine.programs.program import Device, Program
from tests.support.llama_server.behaviour import Device as Claimed
from tests.support.llama_server.stand_in import stand_in

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

    async def survey() -> list[Program]:
        programs: list[Program] = state["programs"]
        return programs

    state["programs"] = [Program(None, "xllamacpp 1", devices=())]
    state["gpus"] = Gpus()
    monkeypatch.setattr(probe, "survey", survey)
    monkeypatch.setattr(gpus, "find_gpus", lambda: state["gpus"])
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
    machine, engines, relu, softmax = map(json.loads, capsys.readouterr().out.splitlines())
    assert (machine["event"], machine["gpu"]["usable"]) == ("machine", False)
    assert machine["packages"]["numpy"]
    assert engines == {
        "event": "engines",
        "engines": [{"engine": "builtin", "version": "xllamacpp 1", "build": None, "devices": []}],
        "gpus": {"nvidia": [], "other": False, "hidden": False},
        "advice": "",
    }
    assert (relu["passed"], relu["miss"], softmax["passed"]) == (False, None, True)


def test_engines(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    cuda = Device("CUDA0", "NVIDIA H200", 140 << 30, 139 << 30)
    found["gpus"] = Gpus(nvidia=("NVIDIA H200",))
    found["programs"] += [
        Program(Path("/a/llama-server"), "11434", devices=(cuda,)),
        Program(Path("/b/llama-server"), "1"),
        Program(Path("/c/llama-server"), unusable="/c/llama-server is none"),
    ]
    assert doctor.main(["--backend", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "engines    built-in: xllamacpp 1; no GPU, the CPU only\n" in out
    assert " /a/llama-server: 11434; CUDA0 (NVIDIA H200, 139.0 of 140.0 GiB free)\n" in out
    assert " /b/llama-server: 1; its GPUs are not known: it has no --list-devices\n" in out
    assert "           /c/llama-server is none\n" in out
    assert "for them: NVIDIA H200\n" in out
    assert "docs/gpu.md" not in out


def test_a_gpu_that_no_engine_uses(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["gpus"] = Gpus(nvidia=("NVIDIA H200",))
    found["programs"] = [Program(None, unusable="ImportError: no")]
    assert doctor.main(["--backend", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "engines    built-in: does not run here: ImportError: no\n" in out
    assert "no engine uses that: install a llama-server that can (docs/gpu.md" in out


def test_each_llama_server_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("one", "none", "link", "two")]
    for folder in folders:
        folder.mkdir()
    stand_in(folders[0], devices=(Claimed(),))
    (folders[2] / "llama-server").symlink_to(folders[0] / "llama-server")
    (folders[3] / "llama-server").write_text("#!/bin/sh\nexit 3\n")
    (folders[3] / "llama-server").chmod(0o755)
    python = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, [*folders, python])))
    builtin, first, second = doctor.engines()["engines"]
    assert builtin["engine"] == "builtin"
    assert first["engine"] == str(folders[0] / "llama-server")
    assert first["devices"][0]["name"] == "CUDA0"
    assert "is no llama-server that runs here" in second["unusable"]


def test_a_wrong_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--seed", "-1"]) == 2
    assert "--seed must be 0 or more" in capsys.readouterr().err


def test_a_real_kernel_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selfcheck, "names", lambda: ["relu", "list_statistics"])
    assert doctor.main(["--backend", "cpu"]) == 0
    assert capsys.readouterr().out.count("  ok  ") == 2


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What compiling all kernels comes to, in place of doing it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcome = [kept.Warmed(3, 65, 1.25, {})]

    def warm(progress: Any) -> kept.Warmed:
        progress("spin", 1, 3)
        return outcome[0]

    monkeypatch.setattr(kept, "warm", warm)
    return outcome


def test_kernels_are_compiled_ahead(
    found: dict[str, Any], warmed: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found["gpu"] = GPU
    assert doctor.main(["--warm"]) == 0
    assert capsys.readouterr().out == (
        "3 kernels compiled in 1.2 s, 65 were there already: none is compiled for a GPU yet; "
        f"they are kept in {tmp_path}/llcuda/cubins\n"
    )
    assert found["ran"] == []
    assert doctor.main(["--warm", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["compiled"], event["already"]) == ("warm", 3, 65)
    assert event["compiled_kernels"] == {
        "folder": f"{tmp_path}/llcuda/cubins", "kernels": 0, "bytes": 0,
    }  # fmt: skip


def test_a_kernel_that_does_not_compile_is_told(
    found: dict[str, Any], warmed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found["gpu"] = GPU
    warmed[0] = kept.Warmed(0, 67, 1.0, {"spin": "it cannot be kept in /x"})
    assert doctor.main(["--warm"]) == 1
    assert "spin: it cannot be kept in /x" in capsys.readouterr().out


def test_nothing_is_compiled_without_a_gpu_or_beside_checks(
    found: dict[str, Any], warmed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main(["--warm"]) == 1
    assert "the GPU is not used: no NVIDIA driver is installed" in capsys.readouterr().err
    for more in (["--backend", "cuda"], ["--seed", "1"]):
        assert doctor.main(["--warm", *more]) == 2
        assert "--warm checks nothing" in capsys.readouterr().err


def test_what_is_kept_is_told(
    found: dict[str, Any], warmed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from llcuda_kernels.cuda.runtime import kept as disk

    disk.put("ab" * 32, disk.Code("k", b"\x7fELF" + bytes(1 << 20)))
    assert doctor.main(["--backend", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"kernels    1 compiled for GPUs, 1.0 MiB, kept in {disk.folder()}" in out
