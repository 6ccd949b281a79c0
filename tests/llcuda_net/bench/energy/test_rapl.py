"""RAPL's counters, by a tree of files as Linux has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.bench.energy import rapl
from llcuda_net.bench.energy.meters import MeterError


def zone(root: Path, folder: str, name: str, microjoules: int) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text("262143328850\n")
    return path


@pytest.fixture(autouse=True)
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")


def test_packages_and_memory_are_added_and_nothing_twice(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    zone(tmp_path, "intel-rapl:0:1", "dram", 1)
    zone(tmp_path, "intel-rapl:1", "package-1", 1)
    zone(tmp_path, "intel-rapl:2", "psys", 1)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1)  # the same package by another way
    meters, missing = rapl.meters(tmp_path)
    assert missing == []
    assert [(meter.name, meter.kind) for meter in meters] == [
        ("processor 0", "cpu"),
        ("memory of processor 0", "memory"),
        ("processor 1", "cpu"),
    ]


def test_a_counter_that_starts_again(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 262_143_000_000)
    ([meter], _) = rapl.meters(tmp_path)
    assert meter.joules(0.0) == 0
    (path / "energy_uj").write_text("4671150\n")
    assert meter.joules(1.0) == pytest.approx(5.0)  # 0.32885 J to the end, 4.67115 J after it
    (path / "energy_uj").write_text("14671150\n")
    assert meter.joules(2.0) == pytest.approx(15.0)
    (path / "energy_uj").unlink()
    with pytest.raises(MeterError, match="processor 0"):
        meter.joules(3.0)


def test_only_root_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read = Path.read_text

    def guarded(self: Path, *args: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *args)

    monkeypatch.setattr(Path, "read_text", guarded)
    meters, (missing,) = rapl.meters(tmp_path)
    assert meters == []
    assert "CVE-2020-8694" in missing.why
    assert f"sudo chmod a+r {tmp_path}/intel-rapl:*/energy_uj" in missing.why


def test_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (missing,) = rapl.meters(tmp_path)[1]
    assert "a virtual machine, or a kernel without RAPL" in missing.why
    monkeypatch.setattr("sys.platform", "darwin")
    assert rapl.meters(tmp_path)[1][0].why == "RAPL is read on Linux only"
