"""How figures and tables are written for terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llcuda_net.util.numbers import three_digits

Table = tuple[list[str], list[list[str]]]
#: Makes the lines of a table, as `grid` does.
Draw = Callable[[list[str], list[list[str]]], Iterable[str]]

#: How the rates of documents are shown.
RATES = {
    "tokens_per_s": "tokens/s",
    "searches_per_s": "searches/s",
    "vectors_per_s": "vectors/s",
}


def rate_of(found: dict[str, Any]) -> str:
    """The rate that a scaling document is about; those of before searches do not say."""
    return str(found.get("rate", "tokens_per_s"))


def estimate(found: dict[str, Any] | None, unit: str = "") -> str:
    """An estimate as JSON has it: "12.3 (11.9 to 12.8)"; "-" where nothing is known."""
    if found is None:
        return "-"
    text = three_digits(found["value"]) + unit
    if found.get("low") is None or found.get("high") is None:
        return text
    return f"{text} ({interval(found)})"


def interval(found: dict[str, Any]) -> str:
    """Its interval alone: "11.9 to 12.8"; empty where there is none."""
    if found.get("low") is None or found.get("high") is None:
        return ""
    return f"{three_digits(found['low'])} to {three_digits(found['high'])}"


def server(about: dict[str, Any]) -> str:
    """A server in words: software, model, and slots and context where they are known."""
    slots = "" if about["slots"] is None else f", {about['slots']} slots"
    context = f", context {about['context']:,}" if about.get("context") else ""
    return f"{about['version']}, {about['model']}{slots}{context}"


def tokens(about: dict[str, Any]) -> str:
    """Who counted the tokens, and whether that was checked, in words; empty if not known."""
    found = about.get("tokens")
    if found is None:
        return ""
    by = {"server": "the server", "pieces": "the pieces that came"}.get(
        found["counted_by"], found["counted_by"]
    )
    if found["difference"] is None:
        return f"tokens counted by {by}, not checked: {found['why']}"
    more = f"{found['difference']:+.1%}"
    return (
        f"tokens counted by {by}, checked: {found['tokenizer']} counts"
        f" {'as many' if more in ('+0.0%', '-0.0%') else more} in {found['answers']} answers"
    )


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table: the first column to the left, the others to the right.

    None of a table without columns, as of figures of which none is known.
    """
    if not heads:
        return
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(wide) for cell, wide in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
