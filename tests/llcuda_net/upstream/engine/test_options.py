"""What an engine may be asked to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llcuda_net.config.upstreams import COMPLETIONS, RERANK
from llcuda_net.errors import ConfigError
from llcuda_net.upstream.engine.options import EngineOptions

MODEL = Path("m.gguf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ctx", 0),
        ("slots", 0),
        ("threads", -1),
        ("yarn_orig_ctx", 0),
        ("gpu_layers", -1),
        ("draft_gpu_layers", -1),
        ("rope_scale", 0.0),
        ("rope_freq_base", -1.0),
        ("rope_freq_scale", float("nan")),
        ("cache_type_k", "q9_0"),
        ("cache_type_v", ""),
        ("flash_attn", "yes"),
        ("rope_scaling", "ntk"),
        ("roles", frozenset()),
        ("roles", frozenset({"chat"})),
        ("roles", frozenset({RERANK, COMPLETIONS})),
        ("draft_gpu_layers", 1),
        ("lora", ((Path("a.gguf"), float("inf")),)),
    ],
)
def test_values_that_cannot_be_meant(name: str, value: Any) -> None:
    words = {"roles": "role", "lora": "LoRA"}.get(name, name)
    with pytest.raises(ConfigError, match=words) as caught:
        EngineOptions(MODEL, **{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", "80"), "--port is no option to give a llama-server here: llcuda-server"),
        (("--flash-attn", "on", "-m", "x"), "-m .* --model"),
        (("--ctx_size", "4"), "--ctx-size .* --ctx"),
        (("--parallel=4",), "--parallel .* --slots"),
        (("--api-key", "s3cret"), "a key of its own"),
        (("-v",), "reads the log"),
        (("--gpt-oss-20b-default",), "models pull"),
        (("--fim-qwen-7b-spec",), "models pull"),
        (("a\0b",), "NUL"),
    ],
)
def test_options_that_are_ours(options: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        EngineOptions(MODEL, options=options)
    assert "s3cret" not in str(caught.value)


def test_others_are_taken() -> None:
    given = ("--flash-attn", "on", "--n-cpu-moe", "3", "-b", "1024", "--spec-default")
    assert EngineOptions(MODEL, options=given).options == given


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ({}, 1.0),
        ({"rope_scale": 4.0}, 4.0),
        ({"rope_scale": 0.5}, 1.0),
        ({"rope_freq_scale": 0.25}, 4.0),
        ({"rope_freq_base": 1e6}, None),
        ({"yarn_orig_ctx": 4096}, None),
    ],
)
def test_how_far_the_context_is_extended(given: dict[str, Any], factor: float | None) -> None:
    assert EngineOptions(MODEL, **given).extends_context == factor


def test_the_name() -> None:
    assert EngineOptions(Path("/a/b.c.gguf")).name == "b.c"
    assert EngineOptions(MODEL, alias="other").name == "other"
