"""docs/models.md says what there is: the keys of a table, sources, columns, options."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from llcuda_net.cli.models.facts import TITLES
from llcuda_net.config.models import ModelSpec, parse
from llcuda_net.models.files.elsewhere import SOURCES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text("utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_key_of_a_table_is_there() -> None:
    rows = re.findall(r"^\| (`.+?) \|", section("Tables of models"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    keys = {field.name for field in fields(ModelSpec) if not field.name.startswith("rope_")}
    assert named == keys


def test_the_example_is_understood() -> None:
    example = re.search(r"```toml\n(.*?)```", section("Tables of models"), re.DOTALL)
    assert example
    (spec,) = parse(tomllib.loads(example[1])["model"], "the example")
    assert (spec.name, spec.pinned, spec.ctx) == ("qwen3", True, 16384)


def test_every_source_has_a_title_and_is_described() -> None:
    assert set(SOURCES) <= set(TITLES)
    for source in SOURCES[1:]:
        assert f"`{source}:" in section("Models of other programs")
