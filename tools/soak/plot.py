"""The soak as a picture: what is judged, over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Each panel: its title, what a figure is divided by, and the series in it.
_PANELS: tuple[tuple[str, float, tuple[tuple[str, str], ...]], ...] = (
    ("server's memory, MiB", float(1 << 20), (("rss", "resident"),)),
    ("open descriptors, threads", 1.0, (("descriptors", "descriptors"), ("threads", "threads"))),
    ("to the first token, ms", 1e-3, (("first_p50", "p50"), ("first_p99", "p99"))),
    ("between tokens, ms", 1e-3, (("interval_p50", "p50"), ("interval_p99", "p99"))),
    (
        "CPU, cores",
        1.0,
        (("server_cpu", "server"), ("own_cpu", "upstreams, clients"), ("machine_cpu", "all")),
    ),
    ("on the disk, MiB", float(1 << 20), (("journal", "journal"), ("store", "store"))),
)


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw the document of a soak.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (extra `bench`).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    samples, trends = document["samples"], document["trends"]
    minutes = [sample["time"] / 60 for sample in samples]
    figure, axes = pyplot.subplots(3, 2, figsize=(10, 8), layout="constrained", sharex=True)
    for panel, (title, unit, series) in zip(axes.flat, _PANELS, strict=True):
        for name, label in series:
            values = [
                sample[name] / unit if sample[name] is not None else float("nan")
                for sample in samples
            ]
            verdict = f", {trends[name]['verdict']}" if name in trends else ""
            panel.plot(minutes, values, ".-", markersize=2, linewidth=0.8, label=label + verdict)
        panel.set_title(title, fontsize=10)
        panel.set_ylim(bottom=0)
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("minutes")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
