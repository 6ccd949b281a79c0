"""Joules, watts and cost, for terminals and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llcuda_net.bench.report import plots
from llcuda_net.bench.report.cells import Draw, Table, estimate, grid
from llcuda_net.bench.report.page import Section
from llcuda_net.util.numbers import plain, three_digits

#: What a row of figures is of ("concurrency 4"), and the figures; None: none were taken.
Rows = Sequence[tuple[str, dict[str, Any] | None]]

_KINDS = {"gpu": "GPU", "cpu": "processor", "all": "all devices"}
_NAMES = {
    "watts": "watts",
    "joules_per_token": "J/token",
    "joules_per_token_above_idle": "J/token above idle",
    "joules_per_request": "J/request",
}
_COST = "cost_per_million_tokens"


def lines(found: dict[str, Any] | None, corner: str, rows: Rows, draw: Draw = grid) -> list[str]:
    """For a terminal: what was read, and the table; nothing where nothing was asked.

    Args:
        found: the document's `energy`.
        corner: what the rows are called.
        draw: makes the lines of a table.
    """
    if found is None:
        return []
    shown = table(found, corner, rows)
    return ["", about(found), *(["", *draw(*shown)] if shown else [])]


def about(found: dict[str, Any]) -> str:
    """Of which devices, and why not of others, in words."""
    missing = [f"{_KINDS[each['kind']]}: {each['why']}" for each in found["missing"]]
    if not found["devices"]:
        return f"energy is not known: {'; '.join(missing)}" if missing else "energy was not asked"
    devices = []
    for device in found["devices"]:
        idle, watts = device["idle_watts"], device["watts"]
        known = [] if watts is None else [f"{three_digits(watts)} W in the mean"]
        known += [] if idle is None else [f"{three_digits(idle)} W before anything was asked"]
        devices.append(f"{device['name']} (by its {device['method']}; {', '.join(known)})")
    text = f"energy of this machine, whoever took it: {'; '.join(devices)}"
    return f"{text}; not known: {'; '.join(missing)}" if missing else text


def currency(found: dict[str, Any]) -> str:
    """Of the prices, with a space before it; "" where it was not said."""
    prices = found["prices"]
    return f" {prices['currency']}" if prices and prices["currency"] else ""


def table(found: dict[str, Any], corner: str, rows: Rows) -> Table | None:
    """A row per load, without the columns in which nothing is known; None without any."""
    names = {**_NAMES, _COST: f"{currency(found).strip() or 'cost'} per million tokens"}
    taken = [(name, figures) for name, figures in rows if figures is not None]
    kept = [key for key in names if any(figures[key] is not None for _, figures in taken)]
    if not kept:
        return None
    cells = [[name, *(estimate(figures[key]) for key in kept)] for name, figures in taken]
    return [corner, *(names[key] for key in kept)], cells


def section(
    found: dict[str, Any] | None,
    corner: str,
    rows: Rows,
    figure: plots.Figure | None = None,
) -> list[Section]:
    """The part of a page; says why where nothing is known."""
    if found is None:
        return []
    shown = table(found, corner, rows)
    text = about(found)
    text = f"{text[:1].upper()}{text[1:]}."
    if found["prices"]:
        text += f" {_paid(found)}"
    tables = [] if shown is None else [shown]
    return [Section("Energy and cost", text, [figure], tables, alone=True)]


def _paid(found: dict[str, Any]) -> str:
    prices = found["prices"]
    parts = [
        f"{plain(prices[key])}{currency(found)} {unit}"
        for key, unit in (("kwh", "for a kWh"), ("hour", "for an hour of the machine"))
        if prices[key] is not None
    ]
    return f"Paid: {', '.join(parts)}. The cost is of output tokens."


def curve(rows: Sequence[tuple[float, dict[str, Any] | None]], x: plots.Axis) -> Any:
    """Joules by token over the load; None where they are not known."""
    known = [
        (load, figures["joules_per_token"])
        for load, figures in rows
        if figures is not None and figures["joules_per_token"] is not None
    ]
    return plots.chart(
        "Joules per output token",
        [plots.estimates("J/token", known, 0)],
        x,
        plots.Axis("J/token", "linear", 0.0),
        caption="All that the devices took in the measuring window, by the tokens that came in it.",
    )
