"""The curves: what each question takes, over the size of the store; a start, over the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Panels by their title, and the questions in them.
_PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("get and lists", ("get", "list", "list, deep", "list, owner", "list, rare state")),
    ("lists by several filters", ("list, two states", "list, owner, state, model", "list, words")),
    ("status", ("status: backlog", "status: backlog, owner", "retention", "stats")),
    ("search: common words", ("search, common", "search, two common", "search, phrase")),
    ("search: prefixes", ("search, re*", "search, r*", "search, ther*", "search, nothing")),
)


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw the document of a run: medians, and from the least to the most as a band.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra `bench`).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stores, journals = document["stores"], document["journals"]
    sizes = [one["results"] for one in stores]
    figure, axes = pyplot.subplots(3, 2, figsize=(10, 11), layout="constrained")
    for panel, (title, names) in zip(axes.flat, _PANELS, strict=False):
        for name in names:
            asked = [one["asked"][name] for one in stores]
            (line,) = panel.plot(sizes, [one["p50_ms"] for one in asked], ".-", label=name)
            low, high = ([one[key] for one in asked] for key in ("least_ms", "most_ms"))
            panel.fill_between(sizes, low, high, alpha=0.15, color=line.get_color())
        panel.set_title(f"{title}, ms")
        panel.set_xlabel("results")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7)
    last = axes.flat[-1]
    last.plot(
        [one["tokens"] for one in journals], [one["seconds"] for one in journals], ".-", label="s"
    )
    last.set_title("start after a crash, s")
    last.set_xlabel("tokens in the journal")
    last.set_ylim(bottom=0)
    last.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
