"""What NVML tells of GPUs, by a module that answers as it does."""

from __future__ import annotations

import sys

import pytest

from llcuda_net.bench.energy import nvml
from llcuda_net.bench.energy.meters import MeterError, Missing
from tests.support.fake_nvml import Device, FakeNvml


def fake(monkeypatch: pytest.MonkeyPatch, *devices: Device, error: str = "") -> FakeNvml:
    found = FakeNvml(list(devices), error)
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def test_what_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake(monkeypatch, Device())
    found = nvml.facts()
    assert (found.driver, found.cuda, found.why) == ("580.10", "13.1", "")
    assert found.gpus == (
        {
            "index": 0,
            "name": "NVIDIA Test",
            "memory_gib": 24.0,
            "clock_mhz": 345,
            "memory_clock_mhz": 810,
            "max_clock_mhz": 1980,
            "max_memory_clock_mhz": 2619,
            "power_limit_watts": None,  # not supported
        },
    )
    assert library.opened == 0


def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, error="Driver Not Loaded")
    assert nvml.facts().why == "NVML: Driver Not Loaded"
    fake(monkeypatch)
    assert nvml.facts().why == "the driver has no GPU"
    with nvml.meters() as (meters, missing):
        assert (meters, missing) == ([], [Missing("gpu", "the driver has no GPU")])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'llcuda-net[bench]'" in nvml.facts().why
    with nvml.meters() as (meters, missing):
        assert meters == []
        assert "not installed" in missing[0].why


def test_a_counter_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(millijoules=5_000)
    library = fake(monkeypatch, device)
    with nvml.meters() as ([meter], missing):
        assert missing == []
        assert (meter.name, meter.method) == ("GPU 0, NVIDIA Test", "energy counter")
        before = meter.joules(0.0)
        device.millijoules = 305_000
        assert meter.joules(1.0) - before == pytest.approx(300)
        device.lost = True
        with pytest.raises(MeterError, match="GPU 0, NVIDIA Test: GPU is lost"):
            meter.joules(2.0)
    assert library.opened == 0


def test_power_is_integrated_where_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 W rising to 300 W within 2 s are 400 J; then 300 W for 1 s."""
    device = Device(millijoules=None, milliwatts=100_000)
    fake(monkeypatch, device)
    with nvml.meters() as ([meter], _):
        assert meter.method == "power, integrated"
        assert meter.joules(10.0) == 0
        device.milliwatts = 300_000
        assert meter.joules(12.0) == pytest.approx(400)
        assert meter.joules(13.0) == pytest.approx(700)


def test_one_gpu_may_tell_and_another_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, Device(millijoules=None, milliwatts=None), Device(name="NVIDIA Other"))
    with nvml.meters() as (meters, missing):
        assert [meter.name for meter in meters] == ["GPU 1, NVIDIA Other"]
        assert missing == [Missing("gpu", "GPU 0, NVIDIA Test tells neither energy nor power")]


def test_the_binding_has_what_is_used_of_it() -> None:
    real = pytest.importorskip("pynvml")
    wanted = [name for name in dir(FakeNvml) if name.lower().startswith("nvml")]
    assert len(wanted) > 10
    assert not [name for name in wanted if not hasattr(real, name)]
