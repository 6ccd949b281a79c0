"""Which models a server has, and by which names; what is wrong with a table's files is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from llcuda_net.config.models import ModelSpec
from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import EMBEDDINGS, ROLES
from llcuda_net.errors import ConfigError
from llcuda_net.models.serving import catalog
from llcuda_net.models.serving.catalog import describe_all
from tests.support.models.gguf_files import LLAMA, write_gguf
from tests.support.models.sources import tiny_gguf


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_gguf())
    return path


def test_what_was_pulled_by_a_short_name_answers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: put(tmp_path / f"{name}.gguf") for name in ("a", "b", "c")}
    short = {files["a"]: "tiny", files["b"]: "mine", files["c"]: "a"}
    monkeypatch.setattr(catalog, "short_names", lambda folder: short)
    mine = ModelSpec("mine", str(files["c"]))
    found = describe_all(Settings(model=(mine,), models=str(tmp_path)))
    names = {one.name: one.spec.aliases for one in found}
    assert names == {"mine": (), "a": ("tiny",), "b": ()}  # a name that is taken stays where it is


def test_the_demonstration_model_beside_a_folder_that_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = put(tmp_path / "demo.gguf")
    monkeypatch.setattr(catalog, "default_folder", lambda: tmp_path / "models")
    with capture_logs() as logs:
        assert [one.name for one in describe_all(Settings(), demo)] == ["demo"]
    assert logs == []
    put(tmp_path / "models/a.gguf")
    with capture_logs() as logs:
        assert [one.name for one in describe_all(Settings(), demo)] == ["demo"]
    assert [(line["event"], line["models"]) for line in logs] == [("models_folder_not_served", 1)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b"):
        write_gguf(folder / f"{name}.gguf")
    return folder


def _names(settings: Settings) -> list[str]:
    return [one.name for one in describe_all(settings)]


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("a", mmproj="no"),
        ModelSpec("a", draft="no"),
        ModelSpec("a", chat_template="no"),
        ModelSpec("a", lora=(("no", 0.5),)),
        ModelSpec("a", lora=(("n" * 5000, 0.5),)),
        ModelSpec("a", chat_template="."),
    ],
)
def test_a_file_that_a_table_names_must_be_there(models: Path, spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match=r"model a: (mmproj|draft|chat_template|lora): "):
        describe_all(Settings(models=str(models), model=(spec,)))


def test_a_home_folder_is_found(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(models.parent))
    (models.parent / "t.jinja").write_text("{{ messages }}")
    spec = ModelSpec("a", chat_template="~/t.jinja", lora=(("~/models/b.gguf", 2.0),))
    found = describe_all(Settings(models="~/models", model=(spec,)))
    assert [one.name for one in found] == ["a", "b"]
    assert found[0].spec.chat_template == str(models.parent / "t.jinja")
    assert found[0].spec.lora == ((str(models / "b.gguf"), 2.0),)


def test_a_file_is_no_folder(models: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.gguf is no folder"):
        describe_all(Settings(models=str(models / "a.gguf")))
    with pytest.raises(ConfigError, match="none does not exist"):
        describe_all(Settings(models=str(models / "none")))


def test_a_model_of_the_folder_whose_name_is_taken_is_named(models: Path) -> None:
    settings = Settings(models=str(models), model=(ModelSpec("c", "a", aliases=("b",)),))
    with capture_logs() as logs:
        assert _names(settings) == ["c"]
    (said,) = [entry for entry in logs if entry["event"] == "model_file_not_used"]
    assert said["path"] == str(models / "b.gguf")
    assert "another model has its name, b" in said["reason"]
    with capture_logs() as logs:  # one table for each file: nothing to say
        assert _names(Settings(models=str(models), model=(ModelSpec("a"),))) == ["a", "b"]
    assert not logs


@pytest.mark.parametrize(
    ("pooling", "roles"), [(1, {"embeddings"}), (4, {"rerank"}), (None, {*ROLES})]
)
def test_a_model_that_was_made_for_one_thing_is_used_for_that(
    pooling: int | None, roles: set[str], tmp_path: Path
) -> None:
    values = dict(LLAMA)
    if pooling is not None:
        values["llama.pooling_type"] = pooling
    write_gguf(tmp_path / "a.gguf", values)
    (found,) = describe_all(Settings(models=str(tmp_path)))
    assert found.spec.roles == roles
    told = ModelSpec("a", roles=frozenset({"completions", "embeddings"}))
    (found,) = describe_all(Settings(models=str(tmp_path), model=(told,)))
    assert found.spec.roles == told.roles


def test_the_default_model_is_one_of_them(models: Path) -> None:
    tables = (ModelSpec("a", aliases=("x",)), ModelSpec("b", roles=frozenset({EMBEDDINGS})))
    for name in ("a", "x"):
        assert _names(Settings(models=str(models), model=tables, default_model=name)) == ["a", "b"]
    for name in ("b", "c"):
        with pytest.raises(ConfigError, match=f"--default-model {name}: no model .* so: a$"):
            describe_all(Settings(models=str(models), model=tables, default_model=name))
