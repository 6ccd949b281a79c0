"""How a compiled kernel is loaded, with a stand-in for cuda.core and the driver."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.kernels.compiling import kernels

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="numba-cuda is for Linux"
)

PTX = ".version 8.0\n.visible .entry _Z4spin$1(\n\t.param .u64 a\n)\n{ ret; }\n"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, on a device of compute capability 9.0 that loads whatever it is given."""
    from llcuda_kernels.cuda.runtime import driver as real

    class Code:
        def __init__(self, ptx: bytes) -> None:
            self.ptx, self.asked = ptx, ""

        def get_kernel(self, name: str) -> Any:
            self.asked = name
            return SimpleNamespace(handle=7)

    core = SimpleNamespace(ObjectCode=SimpleNamespace(from_ptx=Code))
    native = SimpleNamespace(CUkernel=int, cuKernelGetFunction=lambda handle: (0, handle + 1))
    monkeypatch.setattr(real, "core", core)
    monkeypatch.setattr(real, "native", native)
    monkeypatch.setattr(real, "device", lambda: SimpleNamespace(compute_capability=(9, 0)))
    return real


def test_the_layout_of_arguments_is_that_of_the_signature(driver: Any) -> None:
    from llcuda_kernels.cuda.runtime.shim import F32, I32, I64, U32, pointer

    loaded = driver.load(PTX, [pointer(U32), I32, U32, I64, F32])
    assert (loaded.code.ptx, loaded.code.asked) == (PTX.encode(), "_Z4spin$1")
    assert loaded.function == 8
    space = bytearray(40)
    loaded.pack(space, 0, 1 << 40, -2, 3, -4, 0.5)
    assert space[:8] == (1 << 40).to_bytes(8, "little")
    assert space[8:12] == (-2).to_bytes(4, "little", signed=True)
    assert space[24:32] == (-4).to_bytes(8, "little", signed=True)


def test_a_kernel_is_compiled_for_the_device_and_loaded_once(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spin = kernels()["spin"]
    asked: list[tuple[int, int]] = []
    launched: list[Any] = []

    def ptx(cc: tuple[int, int]) -> str:
        asked.append(cc)
        return PTX

    monkeypatch.setattr(spin, "_loaded", None)
    monkeypatch.setattr(spin, "_launch", None)
    monkeypatch.setattr(spin, "_configs", {})
    monkeypatch.setattr(spin, "ptx", ptx)
    monkeypatch.setattr(driver, "launch", lambda *given: launched.append(given))
    # what a self-check says of the device chooses kernels; code is still made for the real one
    monkeypatch.setattr(driver, "compute_capability", lambda: (5, 0))
    spin.launch(3, 256, 1, 2, 5, 7)
    spin.launch((3, 2), 256, 1, 2, 5, 7)
    assert asked == [(9, 0)]
    assert [given[1:] for given in launched] == [
        ((3, 1, 1), (256, 1, 1), 0, (1, 2, 5, 7)),
        ((3, 2, 1), (256, 1, 1), 0, (1, 2, 5, 7)),
    ]
    assert launched[0][0].code.ptx == PTX.encode()
