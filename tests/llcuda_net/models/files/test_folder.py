"""The models folder: what is found in it, by which name, and what is said of the rest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llcuda_net.models.files import folder as module
from llcuda_net.models.files.folder import default_folder, make_folder, models_of, scan, stamp
from llcuda_net.models.files.local_file import HEADERS, Headers, LocalFile
from llcuda_net.upstream.model.gguf import Kind, read_model_file
from tests.support.models.gguf_files import LLAMA, Value, write_gguf, write_split

CLIP: dict[str, Value] = {
    "general.architecture": "clip",
    "general.file_type": 1,
    "clip.vision.projection_dim": 64,
}
F32_CLIP: dict[str, Value] = {**CLIP, "general.file_type": 0}
LORA: dict[str, Value] = {**LLAMA, "general.type": "adapter"}


def names(folder: Path) -> list[str]:
    return [file.name for file in scan(folder) if file.is_model]


def only(folder: Path) -> LocalFile:
    (file,) = scan(folder)
    return file


def test_no_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert scan(tmp_path / "absent") == []
    assert scan(tmp_path) == []


def test_a_file_is_a_model_by_its_name(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "Some Model-7B.Q4_K_M.gguf")
    file = only(tmp_path)
    assert (file.name, file.path, file.source) == ("Some Model-7B.Q4_K_M", path, "models")
    assert file.model is not None
    assert (file.kind, file.model.quantisation) == (Kind.CHAT, "Q4_K_M")
    assert not file.problem
    assert models_of([file]) == {file.name: file}


def test_the_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    parts = write_split(tmp_path / "big", "big", 3)
    file = only(tmp_path)
    assert (file.name, file.path) == ("big", parts[0])
    assert file.model is not None
    assert file.model.parts == tuple(parts)
    assert file.model.parameters == 24
    parts[1].unlink()
    file = only(tmp_path)
    assert "part big-00002-of-00003.gguf is missing" in file.problem
    assert not file.is_model
    parts[0].unlink()
    file = only(tmp_path)
    assert "of 3 parts, the first is missing: big-00001-of-00003.gguf" in file.problem


def test_the_same_name_twice(tmp_path: Path) -> None:
    """The upper folder's keeps it, then the alphabet's first; the others have their paths."""
    for at in ("z/a", "b/a", "a", "c/x/a"):
        write_gguf(tmp_path / f"{at}.gguf")
    write_split(tmp_path, "a", 2)
    found = {file.name: file for file in scan(tmp_path)}
    assert set(found) == {"a", "a.gguf", "b/a", "z/a", "c/x/a"}
    assert found["a"].path.name == "a-00001-of-00002.gguf"
    assert found["b/a"].path == tmp_path / "b" / "a.gguf"
    assert not found["a"].note
    assert found["b/a"].note == "a-00001-of-00002.gguf has the name a already"


def test_broken_files_are_named_and_hide_no_other(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-40])
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "later.gguf.part").write_bytes(whole[:99])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.gguf.incomplete").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo.gguf")
    write_gguf(tmp_path / "folder.gguf" / "inside.GGUF")
    (tmp_path / "README.md").write_text("not ours")
    found = {file.name: file.problem for file in scan(tmp_path)}
    assert found.pop("whole") == found.pop("inside") == ""
    assert set(found) == {
        *("cut", "text", "empty", "link", "loop", "fifo"),
        *("later.gguf.part", "sub/x.gguf.incomplete"),
    }
    assert all(found.values())
    assert not any("\n" in problem for problem in found.values())
    assert "truncated" in found["cut"]
    assert "not finished" in found["later.gguf.part"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all")
def test_folders_and_files_that_may_not_be_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "b.gguf").chmod(0)
    (tmp_path / "c").mkdir(mode=0)
    found = {file.name: file.problem for file in scan(tmp_path)}
    (tmp_path / "c").chmod(0o700)
    assert found.pop("a") == ""
    assert "cannot be read" in found.pop("b")
    assert "cannot be read" in found.pop(str(tmp_path / "c"))


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_gguf(tmp_path / "shut" / "b.gguf")
    real = os.scandir

    def refusing(at: Path) -> object:
        if at.name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(at)

    monkeypatch.setattr(os, "scandir", refusing)
    found = {file.name: file.problem for file in scan(tmp_path)}
    assert found == {
        "a": "",
        str(tmp_path / "shut"): "the folder cannot be read: Permission denied",
    }


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    assert "cannot be read" in only(path).problem


def test_a_stamp_changes_with_what_a_scan_would_find(tmp_path: Path) -> None:
    stamps = [stamp(tmp_path / "models"), stamp(tmp_path)]
    (tmp_path / "a.gguf").write_bytes(b"1")
    stamps.append(stamp(tmp_path))
    (tmp_path / "a.gguf").write_bytes(b"12")
    stamps.append(stamp(tmp_path))
    elsewhere = tmp_path / ".hidden"
    elsewhere.mkdir()
    (elsewhere / "b.gguf").write_bytes(b"1")
    (tmp_path / "notes.txt").touch()
    assert stamp(tmp_path) == stamps[-1]
    (tmp_path / "linked").symlink_to(elsewhere)
    stamps.append(stamp(tmp_path))
    (elsewhere / "b.gguf").unlink()
    stamps.append(stamp(tmp_path))
    assert [len(found) for found in stamps] == [0, 0, 1, 1, 2, 1]
    assert stamps[2] != stamps[3]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_gguf(tmp_path / "sub" / "a.gguf")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "twin").symlink_to(tmp_path / "sub")
    assert names(tmp_path) == ["a"]


def test_what_is_hidden_is_not_looked_at(tmp_path: Path) -> None:
    write_gguf(tmp_path / ".pull" / "half" / "a.gguf")
    write_gguf(tmp_path / ".b.gguf")
    assert scan(tmp_path) == []


def test_what_lies_too_deep_is_said(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 9)
    write_gguf(deep / "a.gguf")
    write_gguf(deep.parent / "b.gguf")
    found = {file.name: file.problem for file in scan(tmp_path)}
    assert found.pop("b") == ""
    assert found == {str(deep): "folders more than 8 deep are not listed"}


def test_too_many_files_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    for name in "abc":
        write_gguf(tmp_path / f"{name}.gguf")
    assert names(tmp_path) == ["a", "b"]
    assert [file.problem for file in scan(tmp_path) if file.problem] == ["only 2 files are listed"]


def test_names_that_are_no_plain_text(tmp_path: Path) -> None:
    write_gguf(tmp_path / "two\nlines.gguf")
    write_gguf(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf")))
    write_gguf(tmp_path / "größer 模型.gguf")
    found = {file.name: file for file in scan(tmp_path)}
    assert names(tmp_path) == ["größer 模型"]
    assert set(found) == {"größer 模型", "two\\nlines", "\\udcff"}
    assert "rename it" in found["two\\nlines"].problem
    assert "rename it" in found["\\udcff"].problem


def test_what_is_no_model(tmp_path: Path) -> None:
    """Adapters are listed with their kind; what nothing loads is left out."""
    write_gguf(tmp_path / "model.gguf")
    write_gguf(tmp_path / "lora.gguf", LORA)
    write_gguf(tmp_path / "imatrix.gguf", {"general.type": "imatrix"})
    write_gguf(tmp_path / "vector.gguf", {"general.architecture": "controlvector"})
    write_gguf(tmp_path / "vocab.gguf", LLAMA, {})
    found = {file.name: file.kind for file in scan(tmp_path)}
    assert found == {"model": Kind.CHAT, "lora": Kind.ADAPTER}
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("architecture", "pooling", "kind"),
    [
        ("llama", None, Kind.CHAT),
        ("llama", 3, Kind.EMBEDDINGS),
        ("bert", None, Kind.EMBEDDINGS),
        ("nomic-bert", 1, Kind.EMBEDDINGS),
        ("bert", 4, Kind.RERANK),
        ("qwen3", 4, Kind.RERANK),
    ],
)
def test_what_a_model_is_for(
    architecture: str, pooling: int | None, kind: Kind, tmp_path: Path
) -> None:
    values: dict[str, Value] = {"general.architecture": architecture}
    if pooling is not None:
        write_gguf(tmp_path / "a.gguf", {**values, f"{architecture}.pooling_type": pooling})
    else:
        write_gguf(tmp_path / "a.gguf", {**values})
    assert only(tmp_path).kind is kind


def test_a_projector_belongs_to_the_one_model_beside_it(tmp_path: Path) -> None:
    write_gguf(tmp_path / "see" / "gemma-Q4_K_M.gguf")
    write_gguf(tmp_path / "see" / "mmproj-f32.gguf", F32_CLIP)
    best = write_gguf(tmp_path / "see" / "mmproj-model-f16.gguf", CLIP)
    write_gguf(tmp_path / "other.gguf")
    found = {file.name: file.mmproj for file in scan(tmp_path)}
    assert found == {"gemma-Q4_K_M": best, "other": None}


def test_projectors_go_by_name_among_several_models(tmp_path: Path) -> None:
    for name in ("gemma-3-4b-it-Q4_0", "gemma-3-4b-it-Q8_0", "Qwen2-VL-7B-Q4_K_M", "qwen2-vl-72b"):
        write_gguf(tmp_path / f"{name}.gguf", {**LLAMA, "llama.block_count": len(name)})
    gemma = write_gguf(tmp_path / "mmproj-gemma-3-4b-it-bf16.gguf", CLIP)
    qwen = write_gguf(tmp_path / "Qwen2-VL-7B.mmproj-fp16.gguf", CLIP)
    write_gguf(tmp_path / "mmproj-F16.gguf", CLIP)
    found = {file.name: file.mmproj for file in scan(tmp_path)}
    assert found == {
        "gemma-3-4b-it-Q4_0": gemma,
        "gemma-3-4b-it-Q8_0": gemma,
        "Qwen2-VL-7B-Q4_K_M": qwen,
        "qwen2-vl-72b": None,
        "mmproj-F16": None,
    }


def test_one_model_in_several_quantisations_shares_a_projector(tmp_path: Path) -> None:
    write_gguf(tmp_path / "gemma-Q4_0.gguf")
    write_gguf(tmp_path / "gemma-Q8_0.gguf")
    shared = write_gguf(tmp_path / "mmproj-F16.gguf", CLIP)
    found = {file.name: file.mmproj for file in scan(tmp_path)}
    assert found == {"gemma-Q4_0": shared, "gemma-Q8_0": shared}


@pytest.mark.parametrize(("width", "belongs"), [(64, True), (65, False)])
def test_a_projector_of_another_name_must_have_the_width(
    width: int, belongs: bool, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "smollm2.gguf")
    clip = {**CLIP, "clip.vision.projection_dim": width}
    path = write_gguf(tmp_path / "mmproj-other.gguf", clip)
    (model,) = [file for file in scan(tmp_path) if file.is_model]
    assert model.mmproj == (path if belongs else None)


def test_a_file_is_read_again_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llcuda_net.models.files import local_file

    path = write_gguf(tmp_path / "a.gguf")
    read: list[Path] = []

    def counting(path: Path, *, whole: bool = True) -> object:
        read.append(path)
        return read_model_file(path, whole=whole)

    monkeypatch.setattr(local_file, "read_model_file", counting)
    monkeypatch.setattr(local_file, "HEADERS", Headers())
    first, again = only(tmp_path), only(tmp_path)
    assert first == again
    assert len(read) == 1
    write_gguf(path, {**LLAMA, "general.name": "changed"})
    changed = only(tmp_path).model
    assert changed is not None
    assert changed.name == "changed"
    assert len(read) == 2


def test_a_thousand_files_take_one_look_each(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number % 10}").mkdir(exist_ok=True)
        if not number:
            whole = write_gguf(tmp_path / "0" / "0.gguf").read_bytes()
        (tmp_path / f"{number % 10}" / f"{number}.gguf").write_bytes(whole)
    assert len(names(tmp_path)) == 1000
    assert len(HEADERS._kept) <= 4096


def test_the_default_folder_is_in_the_private_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llcuda_net.storage.data_dir import prepare

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_folder() == tmp_path / "llcuda" / "models"
    make_folder(default_folder())
    assert stat.S_IMODE(default_folder().parent.stat().st_mode) == 0o700
    default_folder().parent.chmod(0o755)
    prepare(default_folder().parent)  # is still a data directory, which it closes to others
    assert stat.S_IMODE(default_folder().parent.stat().st_mode) == 0o700
    make_folder(tmp_path / "else" / "where")
    make_folder(tmp_path / "else" / "where")
    assert (tmp_path / "else" / "where").is_dir()


ENTRIES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "A B", "..x", "-"]), max_size=3),
        st.sampled_from(
            ["m", "m-00001-of-00002", "m-00002-of-00002", "m-00000-of-00000", "mmproj", "n n", "é"]
        ),
        st.sampled_from([".gguf", ".gguf.part", ".GGUF", ".txt"]),
        st.sampled_from(["model", "clip", "lora", "cut", "junk", "folder", "link"]),
    ),
    max_size=12,
)


@given(ENTRIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_folder_can_be_scanned(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[list[str], str, str, str]]
) -> None:
    """Names are unique, twice the same, and every readable GGUF is there under one name."""
    folder = tmp_path_factory.mktemp("any")
    whole = set()
    for below, stem, end, what in entries:
        at = folder.joinpath(*below)
        path = at / f"{stem}{end}"
        try:
            at.mkdir(parents=True, exist_ok=True)
            if path.exists() or path.is_symlink():
                continue
            if what == "folder":
                path.mkdir()
            elif what == "link":
                path.symlink_to(folder)
            elif what == "junk":
                path.write_bytes(b"junk")
            else:
                kinds = {"model": LLAMA, "clip": CLIP, "lora": LORA, "cut": LLAMA}
                write_gguf(path, kinds[what])
                if what == "cut":
                    path.write_bytes(path.read_bytes()[:-1])
                elif what == "model" and end in (".gguf", ".GGUF") and "-of-" not in stem:
                    whole.add(path)
        except (FileExistsError, NotADirectoryError):
            continue
    found = scan(folder)
    assert found == scan(folder)
    assert len({file.name for file in found if file.is_model or file.kind}) == len(
        [file for file in found if file.kind]
    )
    there = {file.path.resolve() for file in found if file.is_model}
    assert {path for path in whole if "/." not in str(path.relative_to(folder.parent))} <= there
    assert all(bool(file.problem) == (file.model is None) for file in found)
