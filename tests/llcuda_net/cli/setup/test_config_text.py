"""The config file says what was chosen, whatever that holds, and the server takes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.cli.server import make_parser
from llcuda_net.cli.setup.config_text import Chosen, config_text, toml
from llcuda_net.config.settings import Settings, load


def chosen(tmp_path: Path, **more: object) -> Chosen:
    """The least that can be chosen."""
    values = {
        "config": tmp_path / "llcuda.toml",
        "host": "127.0.0.1",
        "port": 9000,
        "data": tmp_path / "data",
        "folder": tmp_path / "models",
    }
    return Chosen(**{**values, **more})  # type: ignore[arg-type]


def settings_of(tmp_path: Path, choice: Chosen) -> Settings:
    """What the server makes of it."""
    file = tmp_path / "written.toml"
    file.write_text(config_text(choice), "utf-8")
    return load(make_parser().parse_args(["--config", str(file)]), {})


def test_the_demonstration_model_needs_no_setting(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, chosen(tmp_path, port=9123))
    assert (settings.host, settings.port) == ("127.0.0.1", 9123)
    assert settings.data_dir == str(tmp_path / "data")
    assert (settings.model, settings.models, settings.engine) == ((), None, "auto")
    assert settings.auth_token_file is None


def test_a_model_of_the_folder_is_named(tmp_path: Path) -> None:
    choice = chosen(tmp_path, model="smollm2", engine="/opt/llama-server", found="a\nb")
    settings = settings_of(tmp_path, choice)
    assert settings.models == str(tmp_path / "models")
    assert [(one.name, one.file, one.preload) for one in settings.model] == [
        ("smollm2", "smollm2", True)
    ]
    assert settings.engine == "/opt/llama-server"


def test_a_model_elsewhere_has_a_table_which_comes_last(tmp_path: Path) -> None:
    blob, eyes = Path('/var/"odd"/sha256-1'), Path("/var/eyes.gguf")
    choice = chosen(tmp_path, model="qwen3:8b", file=blob, mmproj=eyes)
    settings = settings_of(tmp_path, choice)
    (one,) = settings.model
    assert (one.name, one.file, one.mmproj, one.preload) == (
        *("qwen3:8b", str(blob), str(eyes)),
        True,
    )
    assert settings.models == str(tmp_path / "models")
    assert settings.data_dir == str(tmp_path / "data")  # and not a key of the table


def test_upstreams_have_no_settings_of_models(tmp_path: Path) -> None:
    urls = ("http://127.0.0.1:8080", "http://10.0.0.5:8080")
    settings = settings_of(tmp_path, chosen(tmp_path, upstream=urls, engine="builtin"))
    assert tuple(one.url for one in settings.upstream) == urls


def test_beyond_loopback_there_are_tokens(tmp_path: Path) -> None:
    choice = chosen(tmp_path, host="0.0.0.0", tokens=tmp_path / "tokens")
    assert settings_of(tmp_path, choice).auth_token_file == str(tmp_path / "tokens")


@pytest.mark.parametrize("model", [None, "smollm2"])
def test_what_is_commented_out_is_right_as_well(tmp_path: Path, model: str | None) -> None:
    """Each line that somebody may uncomment is a setting that the server knows."""
    text = config_text(chosen(tmp_path, model=model))
    lines = [line for line in text.splitlines() if line.startswith("# ") and " = " in line]
    assert len(lines) >= 8
    written = tmp_path / "one.toml"
    for line in lines:
        written.write_text(line.removeprefix("# ") + "\n", "utf-8")
        load(make_parser().parse_args(["--config", str(written)]), {})


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_a_string_of_toml(text: str) -> None:
    assert tomllib.loads(f"x = {toml(text)}") == {"x": text}
