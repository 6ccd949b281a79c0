"""How a compiled kernel is loaded, with a stand-in for cuda.core and the driver."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llcuda_kernels.cuda.runtime.kept import Code
from tests.support.kernels.compiling import kernels

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="numba-cuda is for Linux"
)

PTX = ".version 8.0\n.visible .entry _Z4spin$1(\n\t.param .u64 a\n)\n{ ret; }\n"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, on a device of compute capability 9.0 that loads whatever it is given."""
    from llcuda_kernels.cuda.runtime import driver as real
    from llcuda_kernels.cuda.runtime.launch_limits import BY_CAPABILITY

    class Code:
        def __init__(self, data: bytes) -> None:
            self.data, self.asked = data, ""

        def get_kernel(self, name: str) -> Any:
            self.asked = name
            return SimpleNamespace(handle=7)

    class Cubin(Code):
        def get_kernel(self, name: str) -> Any:
            if b"older" in self.data:
                raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")
            return super().get_kernel(name)

    core = SimpleNamespace(ObjectCode=SimpleNamespace(from_ptx=Code, from_cubin=Cubin))
    native = SimpleNamespace(CUkernel=int, cuKernelGetFunction=lambda handle: (0, handle + 1))
    monkeypatch.setattr(real, "core", core)
    monkeypatch.setattr(real, "native", native)
    place = SimpleNamespace(capability=(9, 0), key=1, limits=BY_CAPABILITY[9, 0])
    monkeypatch.setattr(real, "place", lambda: place)
    return real


def test_the_layout_of_arguments_is_that_of_the_signature(driver: Any) -> None:
    from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, U32, pointer

    code = Code("_Z4spin$1", PTX.encode())
    loaded = driver.load(code, [pointer(U32), I32, U32, I64, F32])
    assert (loaded.code.data, loaded.code.asked) == (PTX.encode(), "_Z4spin$1")
    assert loaded.function == 8
    space = bytearray(40)
    loaded.pack(space, 0, 1 << 40, -2, 3, -4, 0.5)
    assert space[:8] == (1 << 40).to_bytes(8, "little")
    assert space[8:12] == (-2).to_bytes(4, "little", signed=True)
    assert space[24:32] == (-4).to_bytes(8, "little", signed=True)


@pytest.fixture
def fresh(driver: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A kernel as in a new process, and what becomes of it: `asked` for PTX, `launched`."""
    from llcuda_kernels.cuda.runtime import compiled, shim

    spin = kernels()["spin"]
    state = SimpleNamespace(spin=spin, asked=[], launched=[])

    def ptx(cc: tuple[int, int]) -> str:
        state.asked.append(cc)
        return PTX

    def begin() -> None:
        for name in ("_loaded", "_configs"):
            monkeypatch.setattr(spin, name, {})

    begin()
    state.begin = begin
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(spin, "ptx", ptx)
    monkeypatch.setattr(driver, "launch", lambda *given: state.launched.append(given))
    monkeypatch.setattr(driver, "assemble", lambda text, cc: b"\x7fELF of " + text.encode())
    monkeypatch.setattr(shim, "compilers", lambda: "numba-cuda 1")
    # what a self-check says of the device chooses kernels; code is still made for the real one
    monkeypatch.setattr(driver, "compute_capability", lambda: (5, 0))
    assert compiled.kept_code(spin, (9, 0)) is None
    return state


def test_a_kernel_is_compiled_for_the_device_and_loaded_once(fresh: Any) -> None:
    fresh.spin.launch(3, 256, 1, 2, 5, 7)
    fresh.spin.launch((3, 2), 256, 1, 2, 5, 7)
    assert fresh.asked == [(9, 0)]
    assert [given[1:] for given in fresh.launched] == [
        ((3, 1, 1), (256, 1, 1), 0, (1, 2, 5, 7)),
        ((3, 2, 1), (256, 1, 1), 0, (1, 2, 5, 7)),
    ]
    assert fresh.launched[0][0].code.data == b"\x7fELF of " + PTX.encode()


def test_what_is_kept_is_loaded_and_not_compiled(fresh: Any) -> None:
    for _ in range(3):
        fresh.begin()
        fresh.spin.launch(3, 256, 1, 2, 5, 7)
    assert fresh.asked == [(9, 0)]
    codes = [given[0].code for given in fresh.launched]
    assert {code.data for code in codes} == {b"\x7fELF of " + PTX.encode()}
    assert {code.asked for code in codes} == {"_Z4spin$1"}


def test_what_is_kept_and_does_not_load_is_compiled_anew(
    fresh: Any, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(driver, "assemble", lambda text, cc: b"\x7fELF older")
        with pytest.raises(RuntimeError, match="NO_BINARY"):
            fresh.spin.launch(3, 256, 1, 2, 5, 7)
    fresh.spin.launch(3, 256, 1, 2, 5, 7)
    fresh.begin()
    fresh.spin.launch(3, 256, 1, 2, 5, 7)
    assert fresh.asked == [(9, 0), (9, 0)]
    assert b"older" not in fresh.launched[-1][0].code.data


def test_ptx_that_no_linker_takes_is_left_to_the_driver(
    fresh: Any, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assemble(text: str, cc: tuple[int, int]) -> bytes:
        raise RuntimeError("Unsupported .version 9.9")

    monkeypatch.setattr(driver, "assemble", assemble)
    for _ in range(2):
        fresh.begin()
        fresh.spin.launch(3, 256, 1, 2, 5, 7)
    assert fresh.asked == [(9, 0), (9, 0)]
    assert fresh.launched[0][0].code.data == PTX.encode()


@pytest.mark.parametrize(
    ("name", "target"), [("spin", "sm_90"), ("matmul_bf16_16_rows_wgmma", "sm_90a")]
)
def test_code_is_assembled_for_the_target_of_its_ptx(
    name: str, target: str, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sm_90a` where a kernel has what only that architecture knows, and only there."""
    from llcuda_kernels.cuda.runtime import shim

    asked: list[str] = []

    def options(arch: str) -> None:
        asked.append(arch)

    linked = SimpleNamespace(link=lambda kind: SimpleNamespace(code=kind.encode()))
    monkeypatch.setattr(driver.core, "LinkerOptions", options, raising=False)
    monkeypatch.setattr(driver.core, "Linker", lambda code, options: linked, raising=False)
    monkeypatch.setattr(shim, "has_linker", lambda: True)
    kernel = kernels()[name]
    monkeypatch.setattr(shim, "ptx", lambda *_: PTX.replace("8.0\n", "8.0\n.target sm_90\n"))
    assert driver.assemble(kernel.ptx((9, 0)), (9, 0)) == b"cubin"
    assert asked == [target]
    assert kernel.runs_on((9, 0))
    assert kernel.runs_on((10, 0)) == (target == "sm_90")
    assert not kernel.runs_on((4, 0))


def test_room_of_shared_memory_is_not_taken_back(driver: Any) -> None:
    """A launch with less, between two with more, made the second of these fail."""
    asked: list[int] = []

    def allow(function: int, attribute: int, room: int) -> tuple[int]:
        asked.append(room)
        return (0,)

    name = "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
    driver.native.CUfunction_attribute = SimpleNamespace(**{name: 8})
    driver.native.cuFuncSetAttribute = allow
    loaded = driver.Loaded(None, 7, "q")
    for dynamic in (1_000, 120_000, 49_152, 120_000, 130_000):
        driver.prepare(loaded, 512, dynamic)
    assert asked == [120_000, 130_000]
