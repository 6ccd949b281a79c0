"""The HTML report: one self-contained page, light or dark as its reader prefers, printable."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from llcuda_net.bench.plots import COLOURS
from llcuda_net.errors import ConfigError

#: Classes of the series' colours, --c0 and so on: lines, fills, and keys of a bar's legend.
_COLOURS = "".join(
    f".s{i}{{stroke:var(--c{i});border-color:var(--c{i})!important}}"
    f".f{i}{{fill:var(--c{i});fill-opacity:.85}}"
    f".key i.b{i}{{border-color:var(--c{i});border-top-width:10px}}"
    for i in range(COLOURS)
)


@cache
def _style() -> str:
    text = resources.files("llcuda_net.bench").joinpath("page.css").read_text("utf-8")
    return text + _COLOURS


def write(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def page(title: str, document: dict[str, Any], sections: Iterable[str]) -> str:
    """The whole page: what is wrong first, then the sections, then how to do it again."""
    boxes = []
    if document["problems"]:
        boxes.append(
            _box("bad", "INVALID: these figures are not the server's", document["problems"])
        )
    if document["cautions"]:
        boxes.append(_box("warn", "To be read with the figures", document["cautions"]))
    machine = document["machine"]
    about = [
        ("Processor", machine["processor"]),
        ("Cores", f"{machine['cores']}, load average {machine['load_average']} at the start"),
        ("Memory", f"{machine['memory_gib']} GiB"),
        ("System", machine["system"]),
        *((name, version) for name, version in document["versions"].items()),
        ("Seed", document["seed"]),
    ]
    rows = [[name, str(value)] for name, value in about]
    settings = [[name, _plain(value)] for name, value in document["settings"].items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="sub">{escape(document["when"])}, '
        f"{escape(document['tool'])}</p>{''.join(boxes)}{''.join(sections)}"
        f"<h2>How it was run</h2><code>{escape(shlex.join(document['command']))}</code>"
        f'<div class="plots"><div>{table(["Setting", ""], settings)}</div>'
        f"<div>{table(['Machine and software', ''], rows)}</div></div></body></html>\n"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={_plain(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _box(kind: str, head: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="box {kind}"><b>{escape(head)}</b><ul>{items}</ul></div>'


def section(head: str, *parts: str, text: str = "") -> str:
    """A heading, a sentence, and what stands under them; empty without parts."""
    inside = "".join(parts)
    if not inside:
        return ""
    told = f'<p class="sub">{escape(text)}</p>' if text else ""
    return f"<h2>{escape(head)}</h2>{told}{inside}"


def plots(*figures: str) -> str:
    """Figures side by side, where there is room."""
    inside = "".join(figures)
    return f'<div class="plots">{inside}</div>' if inside else ""


def cards(found: Iterable[tuple[str, str, str]]) -> str:
    """The few figures to be seen first: (value, name, interval)."""
    inside = "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<span>{escape(interval)}</span></div>"
        for value, name, interval in found
    )
    return f'<div class="cards">{inside}</div>' if inside else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell "value (interval)" shows its interval smaller."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    inside = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def _cell(text: str) -> str:
    value, bracket, interval = text.partition(" (")
    small = f" <small>({escape(interval)}</small>" if bracket else ""
    return f"<td>{escape(value)}{small}</td>"
