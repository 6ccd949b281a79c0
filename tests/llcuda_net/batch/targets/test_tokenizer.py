"""Tokenizers that are not the server's own."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from llcuda_net.batch.targets.tokenizer import kind_of, learn, open_tokenizer
from llcuda_net.errors import ConfigError
from tools import synthetic_upstream


async def test_of_a_model_file() -> None:
    with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as model:
        async with open_tokenizer(str(model)) as count:
            few, more = await count("Once"), await count("Once upon a time, there was a robot.")
    assert 1 <= few < more


async def test_of_a_server() -> None:
    with synthetic_upstream.running("--rate", "0") as url:
        async with open_tokenizer(url) as count:
            assert await count("a few words") >= 3


async def test_of_a_json_file(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "a": 1, "b": 2}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    file = tmp_path / "tokenizer.json"
    file.write_text(
        json.dumps({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}})
    )
    async with open_tokenizer(str(file)) as count:
        assert await count("a b c") == 3


@pytest.mark.parametrize("name", ["nowhere.gguf", "tokenizer.bin", "http://", "nowhere.json"])
def test_what_is_none(name: str) -> None:
    with pytest.raises(ConfigError):
        kind_of(name)


async def test_a_target_that_keeps_nothing_teaches_nothing() -> None:
    about: dict[str, object] = {}
    await learn(object(), about, None)
    assert about == {}
