"""The figures of bench_page as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """What was measured, for a person to read."""
    machine = {"cpu": "?", **document["machine"]}
    yield "machine: {cpu}, {cores} cores, Linux {kernel}, Python {python}".format(**machine)
    yield f"browser: {document['browser']}; load before: {document['load_before']:.2f}"
    for name, show in _PARTS.items():
        if name in document:
            yield ""
            yield from show(document[name])


def _paint(of: Mapping[str, Any]) -> Iterator[str]:
    yield f"first paint, {of['repeats']} loads each"
    for name in ("cold", "warm"):
        one = of[name]
        sizes = f"{one['transferred']:,} bytes transferred of {one['files']} files"
        yield f"  {name}: {_ms(one['paint_ms'])}; can be used after {_ms(one['ready_ms'])}; {sizes}"


def _tabs(of: list[Mapping[str, Any]]) -> Iterator[str]:
    for one in of:
        each = f"{one['tabs']} answers at {one['rate']:g} tokens/s, {one['repeats']} repeats"
        kind = "with" if one["certainty"] else "without"
        yield f"server's CPU per token: {each} of {one['seconds']:g} s, {kind} log-probabilities"
        for way, found in one["us_per_token"].items():
            yield f"  {way}: {_spread(found)} µs"
        yield f"  tabs / readers: {_spread(one['tabs_to_readers'])}"
        alone = one["tabs_to_readers_of_reading_alone"]
        yield f"  the same of what reading adds: {_spread(alone)}"


def _answers(of: list[Mapping[str, Any]]) -> Iterator[str]:
    for one in of:
        yield f"an answer of {one['tokens']:,} tokens ({one['kind']}) at {one['rate']:g} tokens/s"
        yield f"  all of it: {_frames(one)}"
        for number, part in enumerate(one["parts"], 1):
            cpu = f"server {part['server_us_per_token']} µs per token"
            yield f"  part {number} of {len(one['parts'])}: {_frames(part)}; {cpu}"


def _turns(of: Mapping[str, Any]) -> Iterator[str]:
    yield f"a conversation of {of['turns']} turns"
    yield f"  open after {_ms(of['open_ms'])}, {of['repeats']} repeats"
    end = "to the first turn" if of["reached_the_first_turn"] else "NOT to the first turn"
    yield f"  scrolled up {end}: {_frames(of['scrolling'])}; {of['elements']:,} elements"


def _history(of: Mapping[str, Any]) -> Iterator[str]:
    yield f"a history of {of['entries']:,} conversations and answers, {of['repeats']} repeats"
    for name, found in of["http_ms"].items():
        yield f"  over HTTP, {name}: {_ms(found)}"
    for name, found in of["scrolling"].items():
        yield f"  {name}, scrolled to entry {found['reached']:,}: {_frames(found)}"
    for words, found in of["search_in_the_page_ms"].items():
        yield f"  searched for {words!r} in the page: {_ms(found)}"


_PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "paint": _paint,
    "tabs": _tabs,
    "answers": _answers,
    "turns": _turns,
    "history": _history,
}


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    return f"{found['median']:.3g} ({found['least']:.3g} to {found['most']:.3g})"


def _ms(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    return f"{found['median']:.1f} ms ({found['least']:.1f} to {found['most']:.1f})"


def _frames(of: Mapping[str, Any]) -> str:
    names = {"p50": "p50_ms", "p95": "p95_ms", "p99": "p99_ms", "longest": "longest_ms"}
    times = ", ".join(f"{name} {of[key]}" for name, key in names.items() if of[key] is not None)
    return (
        f"frames {times} ms, of {of['frames']:,}; {of['stutters']} stutters, "
        f"{of['long_tasks']} long tasks (longest {of['longest_task_ms']} ms), "
        f"CPU {of['cpu_ms_per_frame']} ms per frame"
    )
