"""[[model]] tables, --model, and what stands behind --."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.server import make_parser
from llcuda_net.config.models import ModelSpec, name_of, parse, with_defaults
from llcuda_net.config.settings import Settings, load, split_options
from llcuda_net.errors import ConfigError


def _load(*argv: str, environment: dict[str, str] | None = None) -> Settings:
    ours, engines = split_options(argv)
    arguments = make_parser().parse_args(ours)
    arguments.engine_options = engines
    return load(arguments, environment or {})


def test_a_file_and_a_name_are_models() -> None:
    assert parse("/a/b c.gguf", "--model") == (ModelSpec("b-c", "/a/b c.gguf", preload=True),)
    assert parse(["smollm2", "x.gguf"], "--model") == (
        ModelSpec("smollm2", "smollm2", preload=True),
        ModelSpec("x", "x.gguf", preload=True),
    )


@pytest.mark.parametrize(
    ("file", "name"), [("a.gguf", "a"), ("/m/a.b-Q4.gguf", "a.b-Q4"), ("d/", "d"), ("n", "n")]
)
def test_the_name_of_a_model_is_that_of_its_file(file: str, name: str) -> None:
    assert name_of(file) == name


def test_a_table_has_all_there_is(tmp_path: Path) -> None:
    config = tmp_path / "llcuda.toml"
    config.write_text(
        """
        models = "/models"
        memory = "24G"
        [[model]]
        name = "big"
        file = "/m/big.gguf"
        aliases = ["gpt-4o"]
        ctx = 8192
        slots = 2
        gpu-layers = 99
        roles = ["completions"]
        pinned = true
        idle_seconds = 300
        gpu_memory = "8GiB"
        mmproj = "/m/mmproj.gguf"
        lora = ["/m/a.gguf", "/m/b.gguf:0.5", "C:/m"]
        draft = "/m/small.gguf"
        cache_type_k = "q8_0"
        flash_attn = "on"
        rope_scaling = "yarn"
        rope_scale = 4
        options = ["--no-mmap"]
        [[model]]
        name = "small"
        """,
        encoding="utf-8",
    )
    settings = _load("--config", str(config))
    big, small = settings.model
    assert settings.models == "/models"
    assert settings.memory == 24_000_000_000
    assert big == ModelSpec(
        "big",
        "/m/big.gguf",
        aliases=("gpt-4o",),
        ctx=8192,
        slots=2,
        gpu_layers=99,
        roles=frozenset({"completions"}),
        pinned=True,
        idle_seconds=300.0,
        gpu_memory=8 << 30,
        mmproj="/m/mmproj.gguf",
        lora=(("/m/a.gguf", 1.0), ("/m/b.gguf", 0.5), ("C:/m", 1.0)),
        draft="/m/small.gguf",
        cache_type_k="q8_0",
        flash_attn="on",
        rope_scaling="yarn",
        rope_scale=4.0,
        options=("--no-mmap",),
    )
    assert small == ModelSpec("small")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "must be a file, a name, or tables"),
        ([3], "must be a file, a name or a table"),
        ("", "must be a file or a name"),
        ({}, "name or file is missing"),
        ({"nam": "x"}, "there is no key 'nam'; keys are name, file"),
        ({"name": "a b"}, "name must be"),
        ({"name": "/a"}, "name must be"),
        ({"name": "a", "ctx": 0}, "ctx must be a whole number from 1 on, not 0"),
        ({"name": "a", "ctx": "1"}, "ctx must be"),
        ({"name": "a", "gpu_layers": -1}, "gpu_layers must be a whole number from 0 on"),
        ({"name": "a", "memory": "many"}, "memory must be a size"),
        ({"name": "a", "memory": -1}, "memory must be a size"),
        ({"name": "a", "cache_type_v": "q3"}, "cache_type_v must be one of f32, f16"),
        ({"name": "a", "lora": "x"}, "lora must be a list of files"),
        ({"name": "a", "roles": []}, "roles must be a list of completions"),
        ({"name": "a", "rope_scale": 0}, "rope_scale must be a number above 0"),
        ([{"name": "a"}, {"name": "a"}], "two models are called a"),
        ([{"name": "a"}, {"name": "b", "aliases": ["a"]}], "two models are called a"),
        (["x/m.gguf", "y/m.gguf"], "two models are called m"),
        ({"name": "a", "aliases": ["a"]}, "the model a is called a twice"),
        ({"name": "a", "aliases": ["b", "b"]}, "the model a is called b twice"),
        ({"name": "a", "gpu-layers": 1, "gpu_layers": 2}, "gpu_layers is given twice"),
    ],
)
def test_what_is_wrong_is_named(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(value, "model in llcuda.toml")


def test_nothing_is_no_folder_and_no_engine() -> None:
    with pytest.raises(ConfigError, match="--models must be a folder"):
        _load("--models", "")
    with pytest.raises(ConfigError, match="--engine must be auto, builtin or the path"):
        _load("--engine", " ")


def test_what_a_table_leaves_open_comes_from_the_settings() -> None:
    spec = with_defaults(ModelSpec("a", slots=2), slots=4, ctx=1024)
    assert (spec.slots, spec.ctx) == (2, 1024)


def test_what_stands_behind_two_dashes_is_for_the_engine() -> None:
    settings = _load("--model", "m.gguf", "--", "--flash-attn", "on", "--port", "1")
    assert settings.engine_options == ("--flash-attn", "on", "--port", "1")
    assert settings.port == 9000
    assert _load("--port", "1").engine_options == ()
    found = _load(environment={"LLCUDA_ENGINE_OPTIONS": "--tags 'a b'"})
    assert found.engine_options == ("--tags", "a b")
    with pytest.raises(ConfigError, match="LLCUDA_ENGINE_OPTIONS cannot be split"):
        _load(environment={"LLCUDA_ENGINE_OPTIONS": "'"})


@pytest.mark.parametrize(
    "argv", [["--model", "m"], ["--models", "d"], ["--engine", "builtin"], ["--", "--mlock"]]
)
def test_what_is_for_models_is_refused_beside_upstreams(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"not both|does nothing beside --upstream"):
        _load("--upstream", "http://a", *argv)
