"""A document's figures in one line: for a table of several, and for a badge."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.record.seal import abouts
from llcuda_net.util.numbers import plain, three_digits

#: Characters of a digest that stand for it.
_SHORT = 12
_NAMES = {
    "tokens_per_s": "tokens/s",
    "searches_per_s": "searches/s",
    "vectors_per_s": "vectors/s",
}


def table(documents: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown of documents of one measurement: a heading, and a row for each."""
    heads: list[str] = []
    rows: list[dict[str, str]] = []
    for document in documents:
        line = {**_who(document), **dict(_figures(document)), **_end(document)}
        heads = [*heads, *(name for name in line if name not in heads)]
        rows.append(line)
    ends = list(_end(documents[0])) if documents else []
    heads = [*(name for name in heads if name not in ends), *ends]
    cells = [heads, ["---"] * len(heads), *([row.get(head, "-") for head in heads] for row in rows)]
    return [f"| {' | '.join(map(_cell, each))} |" for each in cells]


def first(document: dict[str, Any]) -> tuple[str, str]:
    """The one figure that stands for a document: its name and value."""
    return next(iter(_figures(document)))


def model(document: dict[str, Any]) -> str:
    """The model in words: name and quantisation, as far as they are told."""
    about = next(abouts(document), None)
    if about is None:
        return "no model"
    told = about["facts"]["model"]
    return " ".join(filter(None, (told["name"] or about["model"], told["quantisation"])))


def server(document: dict[str, Any]) -> str:
    """The server in words: software and version, as far as they are told."""
    about = next(abouts(document), None)
    if about is None:
        return "no server"
    told = about["facts"]
    return " ".join(filter(None, (told["software"], told["version"]))) or str(about["version"])


def machine(document: dict[str, Any]) -> str:
    """The machine in words: GPUs, processor, cores."""
    told = document["machine"]
    gpus = [each["name"] or "a GPU" for each in document["gpus"]["devices"] or ()]
    counted = [
        name if (many := gpus.count(name)) == 1 else f"{many} x {name}"
        for name in dict.fromkeys(gpus)
    ]
    cores = "1 core" if told["cores"] == 1 else f"{told['cores']} cores"
    where = "" if document["served_here"] is not False else " (not the server's)"
    return ", ".join([*counted, f"{told['processor'] or told['architecture']}, {cores}"]) + where


def _who(document: dict[str, Any]) -> dict[str, str]:
    return {
        "server": server(document),
        "model": model(document),
        "machine": machine(document),
    }


def _end(document: dict[str, Any]) -> dict[str, str]:
    return {
        "counts": "INVALID" if document["problems"] else "yes",
        "record": document["digest"][:_SHORT],
    }


def _figures(document: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = {"latency": _latency, "throughput": _throughput, "scaling": _scaling}
    return kinds[document["measurement"]](document)


def _latency(document: dict[str, Any]) -> list[tuple[str, str]]:
    path = next(iter(document["paths"].values()))
    wanted = (
        ("TTFT p50, ms", "ttft", "p50"),
        ("TTFT p99, ms", "ttft", "p99"),
        ("per token p50, ms", "tpot", "p50"),
        ("whole answer p50, ms", "latency", "p50"),
    )
    figures = [(name, _told(path["metrics"][metric].get(key))) for name, metric, key in wanted]
    return [*figures, ("load", document["schedule"])]


def _throughput(document: dict[str, Any]) -> list[tuple[str, str]]:
    rows = document["concurrency"] or document["rates"]
    best = max(rows, key=lambda row: float(row["tokens_per_s"]["value"]), default=None)
    knee, at = document["knee"], document["saturation"]
    return [
        ("tokens/s", "-" if best is None else _told(best["tokens_per_s"])),
        ("at", "-" if best is None else plain(best["load"])),
        ("knee at", "-" if knee["load"] is None else plain(knee["load"])),
        ("carried requests/s", "-" if at["carried"] is None else plain(at["carried"])),
    ]


def _scaling(document: dict[str, Any]) -> list[tuple[str, str]]:
    last, rate = document["rows"][-1], document["rate"]
    return [
        (_NAMES[rate], _told(last[rate])),
        (document["over"], plain(last["size"])),
        ("speedup", _told(last["speedup"])),
    ]


def _told(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "-"
    text = three_digits(estimate["value"])
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return text
    return f"{text} ({three_digits(low)} to {three_digits(high)})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
