"""How much of a model has been read, for a person who waits."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.upstream.engine.load_progress import Residency, human_size


def test_how_much_of_a_file_is_in_memory(tiny: Path, tmp_path: Path) -> None:
    tiny.read_bytes()
    with Residency([tiny]) as residency:
        assert residency.fraction() in (1.0, None)
    assert residency.fraction() is None
    (tmp_path / "empty").touch()
    with Residency([tmp_path / "empty"]) as nothing:
        assert nothing.fraction() is None


def test_sizes_for_people() -> None:
    sizes = [0, 1023, 1024, 4_402_341_478, 5 << 50]
    assert [human_size(n) for n in sizes] == ["0 B", "1023 B", "1.0 KiB", "4.1 GiB", "5120.0 TiB"]
