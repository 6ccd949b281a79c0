"""The figures for a person: as text for a terminal, or as Markdown to paste into a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Share of a core from which on the server itself is the limit.
WHOLE_CORE = 0.9
_COLUMN = 30
_COMMON = {
    "cpu_us_per_token": "CPU a token, us",
    "main_cpu_us_per_token": "  of it on the event loop, us",
    "cpu_us_beyond_memory": "  beyond nothing kept, us",
    "cpu_us_beyond_llcuda": "  beyond our protocol, us",
    "cpu_us_beyond_http": "  beyond a chat, us",
}
_PACED = {
    **_COMMON,
    "main_wakeups_per_step": "wake-ups a step, event loop",
    "wakeups_per_step": "wake-ups a step, all threads",
    "ttft_ms_p50": "first token p50, ms",
    "added_ttft_ms_p50": "  added to first token p50, ms [95 %]",
    "added_ttft_ms_p99": "  added to first token p99, ms",
    "delay_ms_p50": "emission to arrival p50, ms",
    "delay_ms_p99": "emission to arrival p99, ms",
    "added_delay_ms_p50": "delay beyond direct p50, ms",
    "added_delay_ms_p99": "delay beyond direct p99, ms",
    "tokens_per_s": "tokens/s",
    "idle_cpu_share": "CPU share while idle",
    "peak_memory_mib": "peak memory, MiB",
    "load_cpu_share": "load's own CPU share",
    "upstream_cpu_share": "upstream's CPU share",
    "others_cpu_share": "other processes' CPU share",
}
_SATURATED = {
    **_COMMON,
    "tokens_per_s": "tokens/s",
    "cpu_share": "CPU share (1: the limit)",
    "tokens_per_read": "tokens a read at the client",
    "peak_memory_mib": "peak memory, MiB",
    "load_cpu_share": "load's own CPU share",
    "upstream_cpu_share": "upstream's CPU share",
    "others_cpu_share": "other processes' CPU share",
}
#: What tells that a run was sound, which a page does not repeat.
_CHECKS = (
    *("idle_cpu_share", "load_cpu_share", "upstream_cpu_share", "others_cpu_share"),
    *("ttft_ms_p50", "delay_ms_p50", "delay_ms_p99"),
)
_NAMES = {"memory": "nothing kept", "http": "llcuda by HTTP", "responses": "/v1/responses"}


def table(document: Mapping[str, Any]) -> str:
    """As text: medians over the repeats, least and greatest in brackets."""
    lines = []
    for arrivals, paths, rows in _tables(document):
        width = max(len(label) for label, _ in rows)
        lines.append(f"\n{arrivals}")
        lines.append(" " * width + "".join(f"{path:>{_COLUMN}}" for path in paths))
        for label, cells in rows:
            lines.append(f"{label:{width}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells))
    lines.append("\naims")
    for aim in document["aims"]:
        lines.append(f"  {aim['what']:56} {aim['aim']:>15}   {_value(aim):>12}   {_verdict(aim)}")
    return "\n".join((*lines, *_notes(document)))


def markdown(document: Mapping[str, Any]) -> str:
    """As Markdown: the machine, the command, and the same tables."""
    machine, settings = document["machine"], document["settings"]
    about = (
        f"Machine: {machine['cpu']}, {machine['cores']} cores; Linux {machine['kernel']}, Python "
        f"{machine['python']}, nginx {machine['nginx'] or 'not installed'}. "
        f"{settings['streams']} streams at {settings['rate']:g} tokens/s, {settings['repeats']} "
        f"repeats of {settings['seconds']:g} s; median (least to greatest). {settings['cores']}"
    )
    lines = [about, "", "```", "python " + " ".join(document["command"]), "```"]
    for arrivals, paths, rows in _tables(document, without=_CHECKS):
        lines += ["", f"### {arrivals.capitalize()}", ""]
        lines.append("| | " + " | ".join(map(_title, paths)) + " |")
        lines.append("|---" * (len(paths) + 1) + "|")
        for label, cells in rows:
            text = label.strip().replace("us", "µs") if label.endswith(" us") else label.strip()
            lines.append(f"| {text} | " + " | ".join(cells) + " |")
    lines += ["", "| aim | | measured | |", "|---|---|---|---|"]
    for aim in document["aims"]:
        lines.append(f"| {aim['what']} | {aim['aim']} | {_value(aim)} | {_verdict(aim)} |")
    return "\n".join((*lines, "", *_notes(document))).rstrip()


def _tables(
    document: Mapping[str, Any], without: Sequence[str] = ()
) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """Of each kind of arrivals: its name, paths, and rows with a figure, unless there is none."""
    out = []
    for arrivals, by_path in document["summary"].items():
        names = dict(_SATURATED if arrivals == "saturated" else _PACED)
        found = dict.fromkeys(name for figures in by_path.values() for name in figures)
        times = {name: f"  times {name[10:]}" for name in found if name.startswith("cpu_times_")}
        first = {name: names.pop(name) for name in ("cpu_us_per_token", "main_cpu_us_per_token")}
        names = {**first, **times, **names}
        rows = []
        for name, label in names.items():
            if name not in without and any(name in figures for figures in by_path.values()):
                rows.append((label, [_cell(figures.get(name)) for figures in by_path.values()]))
        if rows:
            out.append((arrivals, list(by_path), rows))
    return out


def _title(path: str) -> str:
    kind, _, level = path.partition("-")
    return ", ".join(_NAMES.get(part, part) for part in (kind, level) if part)


def _value(aim: Mapping[str, Any]) -> str:
    return "not measured" if aim["value"] is None else _figure(aim["value"])


def _verdict(aim: Mapping[str, Any]) -> str:
    return {True: "reached", False: "NOT reached", None: ""}[aim["reached"]]


def _notes(document: Mapping[str, Any]) -> list[str]:
    saturated = document["summary"].get("saturated", {})
    shares = {
        path: figures["cpu_share"]["median"]
        for path, figures in saturated.items()
        if path.startswith("llcuda") and "cpu_share" in figures
    }
    if not shares or (share := max(shares.values())) >= WHOLE_CORE:
        return []
    told = f"(saturated: a lower bound, the server had only {share:.0%} of a core; the load and "
    return [told + "the upstream need cores of their own)"]


def _cell(value: Mapping[str, float | None] | None) -> str:
    if value is None:
        return "-"
    median, least, most = (_known(value[name]) for name in ("median", "least", "most"))
    if value["low"] is not None and value["high"] is not None:
        return f"{median} [{_figure(value['low'])} to {_figure(value['high'])}]"
    return median if value["count"] == 1 else f"{median} ({least} to {most})"


def _known(value: float | None) -> str:
    assert value is not None
    return _figure(value)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 4):.3g}"
