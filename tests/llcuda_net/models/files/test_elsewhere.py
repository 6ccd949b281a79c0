"""Models of other programs: found by their names, and never changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.models.files import elsewhere as module
from llcuda_net.models.files.elsewhere import elsewhere, everything, find
from llcuda_net.models.files.local_file import LocalFile
from llcuda_net.models.files.manifests import ollama_models
from tests.support.models.caches import hub_file, ollama_model
from tests.support.models.gguf_files import LLAMA, Value, write_gguf, write_split

CLIP: dict[str, Value] = {"general.architecture": "clip", "general.file_type": 1}


@pytest.fixture(autouse=True)
def _no_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OLLAMA_SERVICE", tmp_path / "service")
    monkeypatch.setattr("sys.platform", "linux")


def found(home: Path, **environ: str) -> dict[str, LocalFile]:
    files = elsewhere(environ, home)
    assert len({(file.source, file.name) for file in files}) == len(files)
    return {f"{file.source}:{file.name}": file for file in files}


def test_nothing_is_there(tmp_path: Path) -> None:
    assert elsewhere({}, tmp_path) == []
    assert elsewhere({"HF_HOME": "", "OLLAMA_MODELS": "/dev/null/x"}, tmp_path) == []
    (tmp_path / ".ollama").write_text("no folder")
    assert elsewhere({}, tmp_path) == []


# -- Hugging Face ------------------------------------------------------------------------------


def test_the_hub(tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    link = hub_file(hub, "ggml-org/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q4_0.gguf", ref="main")
    hub_file(hub, "gpt2", "quantised/gpt2-f16.gguf")
    hub_file(hub, "o/r", "README.md")
    write_gguf(hub / "datasets--o--d" / "snapshots" / "c0ffee" / "x.gguf")
    models = found(tmp_path)
    assert set(models) == {
        "huggingface:ggml-org/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q4_0",
        "huggingface:gpt2/gpt2-f16",
    }
    file = models["huggingface:ggml-org/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q4_0"]
    assert file.path == link
    assert file.is_model


@pytest.mark.parametrize(
    ("variable", "where"),
    [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("LLAMA_CACHE", ""),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_the_hub_is_where_the_environment_says(variable: str, where: str, tmp_path: Path) -> None:
    hub_file(tmp_path / "else" / where, "o/r", "m.gguf")
    assert set(found(tmp_path, **{variable: str(tmp_path / "else")})) == {"huggingface:o/r/m"}
    assert set(found(tmp_path, **{variable: "~/else"})) == {"huggingface:o/r/m"}


def test_several_commits(tmp_path: Path) -> None:
    """Those of main have the names; a file that did not change is listed once."""
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    hub_file(hub, "o/r", "m.gguf", commit="aaaaaaaaaaaa")
    newer = hub_file(hub, "o/r", "m.gguf", commit="bbbbbbbbbbbb", ref="main")
    same = hub_file(hub, "o/r", "same.gguf", commit="bbbbbbbbbbbb")
    (same.parent.parent / "aaaaaaaaaaaa" / "same.gguf").symlink_to(same.readlink())
    models = found(tmp_path)
    assert set(models) == {
        "huggingface:o/r/m",
        "huggingface:o/r/m@aaaaaaaa",
        "huggingface:o/r/same",
    }
    assert models["huggingface:o/r/m"].path == newer


def test_a_snapshot_without_its_blob(tmp_path: Path) -> None:
    link = hub_file(tmp_path / ".cache" / "huggingface" / "hub", "o/r", "m.gguf")
    link.resolve().unlink()
    file = found(tmp_path)["huggingface:o/r/m"]
    assert not file.is_model
    assert "does not exist" in file.problem


def test_parts_and_projectors_of_a_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / ".cache/huggingface/hub/models--o--r/snapshots/c0ffee"
    parts = write_split(snapshot / "Q8_0", "m-Q8_0", 2)
    write_gguf(snapshot / "see-Q4_0.gguf")
    projector = write_gguf(snapshot / "mmproj-F16.gguf", CLIP)
    models = found(tmp_path)
    assert models["huggingface:o/r/m-Q8_0"].path == parts[0]
    assert models["huggingface:o/r/see-Q4_0"].mmproj == projector
    assert len(models) == 2


# -- LM Studio ---------------------------------------------------------------------------------


def test_lm_studio(tmp_path: Path) -> None:
    write_gguf(tmp_path / ".lmstudio" / "models" / "o" / "r" / "new.gguf")
    write_gguf(tmp_path / ".cache" / "lm-studio" / "models" / "o" / "r" / "old.gguf")
    write_gguf(tmp_path / "moved" / "models" / "o" / "r" / "moved.gguf")
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/moved\n")
    assert set(found(tmp_path)) == {"lmstudio:new", "lmstudio:old", "lmstudio:moved"}
    (tmp_path / ".lmstudio-home-pointer").write_bytes(b"relative\0\xff")
    assert set(found(tmp_path)) == {"lmstudio:new", "lmstudio:old"}


# -- Ollama ------------------------------------------------------------------------------------


def test_ollama(tmp_path: Path) -> None:
    folder = tmp_path / ".ollama" / "models"
    folder.mkdir(parents=True)
    blob = ollama_model(folder, "llama3.2:1b", write_gguf(tmp_path / "a"))
    see = {**LLAMA, "general.name": "b"}
    ollama_model(
        *(folder, "me/see", write_gguf(tmp_path / "b", see)),
        projector=write_gguf(tmp_path / "p", CLIP),
        adapter=write_gguf(tmp_path / "l"),
    )
    hub = {**LLAMA, "general.name": "c"}
    ollama_model(folder, "o/r:Q8_0", write_gguf(tmp_path / "c", hub), host="hf.co")
    models = found(tmp_path)
    assert set(models) == {"ollama:llama3.2:1b", "ollama:me/see:latest", "ollama:hf.co/o/r:Q8_0"}
    assert models["ollama:llama3.2:1b"].path == blob
    assert models["ollama:me/see:latest"].mmproj is not None
    assert "adapter" in models["ollama:me/see:latest"].note
    assert set(found(tmp_path / "none", OLLAMA_MODELS=str(folder))) == set(models)


def test_two_names_of_one_file_in_ollama(tmp_path: Path) -> None:
    folder = tmp_path / ".ollama" / "models"
    folder.mkdir(parents=True)
    ollama_model(folder, "a:1", write_gguf(tmp_path / "a"))
    tags = folder / "manifests" / "registry.ollama.ai" / "library" / "a"
    (tags / "2").write_bytes((tags / "1").read_bytes())
    assert set(found(tmp_path)) == {"ollama:a:1"}


def test_a_manifest_without_its_file(tmp_path: Path) -> None:
    folder = tmp_path / ".ollama" / "models"
    folder.mkdir(parents=True)
    ollama_model(folder, "a:1", write_gguf(tmp_path / "a")).unlink()
    assert "does not exist" in found(tmp_path)["ollama:a:1"].problem


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../etc/passwd",
        "sha256-" + "0" * 63,
        "md5:" + "0" * 64,
        "",
        "sha256:" + "A" * 64,
    ],
)
def test_a_digest_names_only_a_blob(digest: str, tmp_path: Path) -> None:
    path = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "a" / "1"
    path.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    path.write_text(json.dumps({"layers": [layer]}))
    (file,) = ollama_models(tmp_path, "ollama")
    assert file.problem == "its manifest names no file of a model"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["layers", "mediaType", "digest", "ggufFile", "rfilename", "x"]),
            inner | st.sampled_from(["application/vnd.ollama.image.model", f"sha256:{'0' * 64}"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_manifest_is_read_without_harm(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / "manifests" / "registry.ollama.ai" / "library" / "a" / "1"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    for file in ollama_models(folder, "ollama"):
        assert file.problem
    cache = folder / ".cache" / "llama.cpp"
    cache.mkdir(parents=True)
    (cache / "manifest=o=r=t.json").write_bytes(data)
    write_gguf(cache / "o_r_m.gguf")
    assert [file.source for file in elsewhere({}, folder)] == ["llama.cpp"]


def test_hostile_manifests(tmp_path: Path) -> None:
    at = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "a"
    at.mkdir(parents=True)
    (at / "deep").write_text('{"layers":' + "[" * 100_000)
    (at / "large").write_bytes(b" " * (2 << 20))
    (at / "loop").symlink_to(at / "loop")
    os.mkfifo(at / "fifo")
    (at / "up").symlink_to(tmp_path / "manifests")
    assert list(ollama_models(tmp_path, "ollama")) == []


# -- llama.cpp ---------------------------------------------------------------------------------


def test_the_cache_of_llama_cpp(tmp_path: Path) -> None:
    cache = tmp_path / ".cache" / "llama.cpp"
    write_gguf(cache / "o_r_sub_m-Q4_0.gguf")
    write_gguf(cache / "plain.gguf")
    (cache / "half.gguf.downloadInProgress").write_bytes(b"")
    manifest: dict[str, Any] = {"ggufFile": {"rfilename": "sub/m-Q4_0.gguf"}}
    (cache / "manifest=o=r=Q4_0.json").write_text(json.dumps(manifest))
    models = found(tmp_path)
    assert set(models) == {
        "llama.cpp:o/r:Q4_0",
        "llama.cpp:plain",
        "llama.cpp:half.gguf.downloadInProgress",
    }
    assert set(found(tmp_path / "none", LLAMA_CACHE=str(cache))) == set(models)


# -- all of them -------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name_ours_first(tmp_path: Path) -> None:
    ours = write_gguf(tmp_path / "ours" / "m.gguf")
    theirs = write_gguf(tmp_path / ".lmstudio" / "models" / "o" / "r" / "m.gguf")
    files = everything(tmp_path / "ours", {"HOME": str(tmp_path)})
    assert [file.path for file in files] == [ours, theirs]
    by_name, by_source = find("m", files), find("lmstudio:m", files)
    assert by_name is not None
    assert by_source is not None
    assert (by_name.path, by_source.path) == (ours, theirs)
    assert find("ollama:m", files) is None


def test_names_that_are_no_text_are_shown_so(tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    hub_file(hub, "o/r\x1b[2J", "m.gguf")
    (name,) = found(tmp_path)
    assert name == "huggingface:o/r\\x1b[2J/m"
    assert "rename it" in found(tmp_path)[name].problem
