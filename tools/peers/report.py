"""The tables: each tool beside the truth, and beside the server's record of its own requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .adapters import PROGRAMS
from .cases import Case
from .figures import NAMES, Figures, error
from .runs import Run

METRICS = {"latency": "response", "ttft": "first"}
TITLES = {"latency": "end to end", "ttft": "TTFT"}


def markdown(document: dict[str, Any], cases: Sequence[Case]) -> str:
    """Everything, as Markdown."""
    order = list(PROGRAMS)
    runs = [Run.of(row) for row in document["runs"]]
    runs.sort(key=lambda run: order.index(run.program))
    parts = [_about(document)]
    for case in cases:
        if rows := [run for run in runs if run.case == case.name]:
            parts += [f"## {case.title}", _case(case, rows)]
    if held := _intervals(cases, runs):
        parts += ["## Intervals", held]
    parts += ["## Command lines", "```sh\n" + "\n".join(_commands(runs)) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _about(document: dict[str, Any]) -> str:
    machine = document["machine"]
    loads = [row["load"] for row in document["runs"]]
    whens = [row["when"][:16].replace("T", " ") for row in document["runs"]]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"{min(whens)} to {max(whens)[11:]} UTC; {versions}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['system']}. Tool and server share the machine; its "
        f"load average was {min(loads):.1f} to {max(loads):.1f} as the runs began."
    )


def _case(case: Case, runs: Sequence[Run]) -> str:
    true = case.truth
    intro = (
        f"`{' '.join(case.options)}`, {case.rate:g} requests/s for {case.seconds:g} s, "
        f"{case.tokens} tokens: {case.why}."
    )
    counts = [["", "arrived", "counted", "cut", "failed", "arrivals/s", "dispersion"]]
    counts[0] += ["requests/s", "tokens/s"]
    rate = f"{case.rate:g}"
    counts.append(["**truth**", "", "", "", "", rate, "1", rate, f"{case.rate * case.tokens:g}"])
    times = [["ms", "", *NAMES]]
    for metric, key in METRICS.items():
        times.append([f"**truth**, {TITLES[metric]}", "", *_plain(true[key] or {})])
        for run in runs:
            title = PROGRAMS[run.program].title
            if run.said is None or run.record is None:
                continue
            said = getattr(run.said, metric)
            record = getattr(run.record, metric)
            times.append([title, "says", *_beside(said, true[key] or {}, record)])
            times.append(["", "took", *_plain(record)])
    failures = []
    for run in runs:
        title = PROGRAMS[run.program].title
        if run.said is None or run.record is None:
            counts.append([title, *["-"] * 8])
            failures.append(f"{title} gave no figures: {run.failed}")
            continue
        said, seen = run.said, run.record
        numbers = [seen.arrived, said.counted, said.cut, said.failed]
        shares = [seen.rate, seen.dispersion, said.requests_per_s, said.tokens_per_s]
        counts.append([title, *map(str, numbers), *(_number(value) for value in shares)])
        failures += [f"{title} warned: {note}" for note in said.notes]
    text = [intro, _table(counts), _table(times)]
    text += [f"- {failure}" for failure in failures]
    return "\n\n".join(text)


def _plain(found: Figures) -> list[str]:
    return [_milliseconds(found.get(name)) for name in NAMES]


def _beside(said: Figures, true: Figures, record: Figures) -> list[str]:
    """Each figure with its error beside the truth, and beside the record."""
    out = []
    for name in NAMES:
        value = said.get(name)
        if value is None:
            out.append("-")
            continue
        errors = (error(value, true.get(name)), error(value, record.get(name)))
        out.append(f"{_milliseconds(value)} ({'; '.join(map(_percent, errors))})")
    return out


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:,.0f}" if value >= 0.1 else f"{value * 1e3:.1f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    rounded = round(value, 2 if abs(value) >= 0.1 else 3) + 0.0  # no "-0.0"
    return f"{rounded:+.0%}" if abs(value) >= 0.1 else f"{rounded:+.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _intervals(cases: Iterable[Case], runs: Sequence[Run]) -> str:
    """How many of the intervals that a tool gives hold the truth, where that is to be sampled.

    Where all answers take the same time an interval has no width, and the client's own millisecond
    is outside of it.
    """
    by_name = {case.name: case for case in cases if case.service.startswith("exponential")}
    if not any(run.case in by_name for run in runs):
        return ""
    rows = [["", *(f"{TITLES[metric]} {name}" for metric in METRICS for name in NAMES)]]
    for program in PROGRAMS.values():
        if not any(run.program == program.name for run in runs):
            continue
        cells = []
        for metric, key in METRICS.items():
            for name in NAMES:
                held = given = 0
                for run in runs:
                    interval = run.said and run.said.intervals.get(f"{metric} {name}")
                    true = run.case in by_name and by_name[run.case].truth[key]
                    if run.program != program.name or not interval or not true:
                        continue
                    given += 1
                    held += interval[0] <= true[name] <= interval[1]
                cells.append(f"{held} of {given}" if given else "none given")
        rows.append([program.title, *cells])
    return (
        "How many of the 95 % intervals that each gives hold the truth, on the servers with a "
        "queue.\n\n"
    ) + _table(rows)


def _commands(runs: Sequence[Run]) -> list[str]:
    """Each tool's command, of the first server."""
    seen: dict[str, str] = {}
    for run in runs:
        seen.setdefault(run.program, " ".join(run.command))
    return list(seen.values())


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, line, *body])
