"""The HTML report: one self-contained page, light or dark as its reader prefers, printable."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from llcuda_net.bench.report.cells import Table
from llcuda_net.bench.report.plots import Figure
from llcuda_net.errors import ConfigError
from llcuda_net.util import numbers

#: (value, name, interval): the few figures to be seen first.
Card = tuple[str, str, str]


@dataclass(slots=True)
class Section:
    """A heading, a sentence, and what stands under them; left out where nothing does.

    Attributes:
        figures: None among them is left out.
        tables: a cell "value (interval)" shows its interval smaller.
    """

    head: str
    text: str = ""
    figures: Sequence[Figure | None] = ()
    tables: Sequence[Table] = ()
    #: Shown with its sentence alone.
    alone: bool = False


def write(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def page(
    title: str, document: dict[str, Any], cards: Sequence[Card], sections: Sequence[Section]
) -> str:
    """The whole page: what is wrong first, then the sections, then how to do it again."""
    return _render(
        title=title,
        when=f"{moment(document)}, {document['tool']}",
        document=document,
        cards=cards,
        sections=_shown(sections),
        runs=[],
        command=shlex.join(document["command"]),
        settings=[[name, plain(value)] for name, value in document["settings"].items()],
        machine=_machine(document),
    )


def overlaid(
    title: str,
    when: str,
    runs: Sequence[tuple[str, dict[str, Any]]],
    notes: Sequence[str],
    sections: Sequence[Section],
) -> str:
    """A page of several runs: what is wrong with each, the sections, how each was run.

    Args:
        runs: their names and documents.
        notes: to be read with the figures.
    """
    problems = [f"{name}: {text}" for name, found in runs for text in found["problems"]]
    return _render(
        title=title,
        when=when,
        document={"problems": problems, "cautions": list(notes)},
        cards=[],
        sections=_shown(sections),
        runs=[
            {"name": f"{name}, {moment(found)}", "command": shlex.join(found["command"])}
            for name, found in runs
        ],
    )


def _shown(sections: Sequence[Section]) -> list[Section]:
    shown = []
    for section in sections:
        section.figures = [figure for figure in section.figures if figure is not None]
        if section.figures or section.tables or section.alone:
            shown.append(section)
    return shown


def _render(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("llcuda_net.bench.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(**values)


def moment(document: dict[str, Any]) -> str:
    """When the run began, to the minute."""
    when = str(document["when"])
    return f"{when[:10]} {when[11:16]} UTC" if when.endswith("+00:00") else when


def _machine(document: dict[str, Any]) -> list[list[str]]:
    machine = document["machine"]
    about = [
        ("Processor", machine["processor"]),
        ("Cores", f"{machine['cores']}, load average {machine['load_average']} at the start"),
        ("Memory", f"{machine['memory_gib']} GiB"),
        ("System", machine["system"]),
        *document["versions"].items(),
        ("Seed", document["seed"]),
    ]
    return [[name, str(value)] for name, value in about]


def plain(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, dict):
        return ", ".join(f"{k}={plain(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return numbers.plain(value) if isinstance(value, float) else str(value)
