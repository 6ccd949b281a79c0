"""All kernels compiled ahead: what is missing is compiled, over processes, and kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llcuda_kernels import BackendError
from llcuda_kernels.runtime import device, kept
from tests.support.kernels.compiling import MODULES

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="NVIDIA's compiler is for Linux"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "llcuda/cubins"


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "gpu", lambda: device.Gpu(False, "no NVIDIA driver"))
    with pytest.raises(BackendError, match="warm: no CUDA here: no NVIDIA driver"):
        kept.warm()


def test_every_kernel_is_found() -> None:
    found = kept.kernels()
    assert {"spin", "scan_int8_mma", "token_statistics"} <= set(found)
    modules = {kernel.function.__module__ for kernel in found.values()}
    assert {f"llcuda_kernels.cuda.{name}" for name in MODULES} <= modules


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Three kernels, two for the architecture; compiled in this process, by a stand-in."""
    from llcuda_kernels.cuda.runtime import driver

    there = kept.kernels()
    names = ("spin", "post", "matmul_bf16_mma")
    monkeypatch.setattr(kept, "kernels", lambda: {name: there[name] for name in names})
    state = SimpleNamespace(compiled=[], assemble=lambda text, cc: b"\x7fELF" + text.encode())

    class Here:
        def __init__(self, workers: int, mp_context: Any, initializer: Any) -> None:
            assert workers >= 1
            assert initializer is kept.end_with_parent

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, run: Any, *args: Any) -> Any:
            from concurrent.futures import Future

            state.compiled.append(args[0])
            done: Future[Any] = Future()
            done.set_result(run(*args))
            return done

    monkeypatch.setattr(kept, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(driver, "assemble", lambda text, cc: state.assemble(text, cc))
    return state


def test_what_is_missing_is_compiled_and_what_is_there_is_not(few: Any, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    first = kept.warm(lambda *say: told.append(say), architecture=(7, 5))
    assert (first.compiled, first.already, first.failed) == (2, 0, {})
    assert [say[1:] for say in told] == [(1, 2), (2, 2)]
    assert {say[0] for say in told} == {"spin", "post"}
    assert kept.kept().kernels == 2
    second = kept.warm(architecture=(7, 5))
    assert (second.compiled, second.already) == (0, 2)
    next(folder.iterdir()).write_bytes(b"damaged")
    third = kept.warm(architecture=(7, 5))
    assert (third.compiled, third.already) == (1, 1)
    assert len(few.compiled) == 3


def test_what_fails_is_told(few: Any, folder: Path) -> None:
    def assemble(text: str, cc: tuple[int, int]) -> bytes:
        raise RuntimeError("Unsupported .version 9.9\nmore")

    few.assemble = assemble
    found = kept.warm(architecture=(7, 5))
    assert (found.compiled, found.already, set(found.failed)) == (0, 0, {"spin", "post"})
    assert found.failed["spin"] == "no linker here takes its PTX, so the driver compiles it"


def test_a_folder_that_cannot_be_written_is_told(few: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"")
    found = kept.warm(architecture=(7, 5))
    assert found.failed["post"] == f"it cannot be kept in {folder}"


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from llcuda_kernels.runtime.kept import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    env = {**os.environ, "PYTHONPATH": str(Path(kept.__file__).parents[2])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=60)  # ends when nobody can write any more: the worker could
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


@pytest.mark.slow
def test_with_real_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs nvJitLink, which the extra cuda13 brings."""
    pytest.importorskip("nvidia.cu13")
    from llcuda_kernels.cuda.runtime import shim

    if not shim.has_linker():
        pytest.skip("nvJitLink is not installed")
    there = kept.kernels()
    monkeypatch.setattr(kept, "kernels", lambda: {n: there[n] for n in ("spin", "post")})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    found = kept.warm(architecture=(9, 0), processes=2)
    assert (found.compiled, found.already, found.failed) == (2, 0, {})
    assert kept.warm(architecture=(9, 0)).already == 2
