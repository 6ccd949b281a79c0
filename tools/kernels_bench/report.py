"""A run of bench_kernels.py as a page and as a roofline plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _rate(row: dict[str, Any]) -> str:
    if row["bytes"]:
        return f"{row['rate'] / 1e9:,.0f} GB/s"
    return f"{row['rate'] / 1e12:,.1f} TFLOP/s"


def _device_rows(report: dict[str, Any]) -> list[str]:
    lines = [
        "| kernel | size | median, ms | least to greatest | reached | share | aim | PyTorch, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["device"]:
        if "error" in row:
            lines.append(f"| {row['name']} | failed: {row['error']} | | | | | | |")
            continue
        share = f"{row['percent']:.1f} % of {row['limit']}" if row["percent"] else ""
        aim = f"{row['aim']:g} %" if row["aim"] else ""
        peer = ", ".join(_number(ms) for ms in row["peers_ms"].values())
        lines.append(
            f"| {row['name']} | {row['size']} | {_number(row['median_ms'])} | "
            f"{_number(row['least_ms'])} to {_number(row['greatest_ms'])} | {_rate(row)} | "
            f"{share} | {aim} | {peer} |"
        )
    return lines


def _cpu_rows(report: dict[str, Any]) -> list[str]:
    lines = ["| what | llcuda, ms | beside it, ms |", "|---|---|---|"]
    for name, row in report["cpu"].items():
        if "llcuda_ms" not in row:
            continue
        others = ", ".join(
            f"{key.removesuffix('_ms').replace('_', ' ')} {_number(ms)}"
            for key, ms in row.items()
            if key != "llcuda_ms"
        )
        lines.append(f"| {name} | {_number(row['llcuda_ms'])} | {others} |")
    return lines


def markdown(report: dict[str, Any]) -> str:
    """The figures as tables; what they mean is written by hand around them."""
    parts = []
    gpu = report["gpu"]
    if gpu["usable"]:
        parts.append(f"### {gpu['name']}\n")
        parts.append(f"Driver for CUDA {gpu['driver']}, {gpu['runtime']}.\n")
        parts += _device_rows(report)
        for name in ("launches", "overlap", "leak"):
            if name in report:
                shown = ", ".join(f"{key} {value:,.4g}" for key, value in report[name].items())
                parts.append(f"\n{name}: {shown}")
    if report["cpu"]:
        parts.append(f"\n### CPU, {report['cpu']['threads']['count']:.0f} threads\n")
        parts += _cpu_rows(report)
    checks = [c for c in report["checks"] if not c["passed"]]
    parts.append(f"\nChecks: {len(report['checks'])} run, {len(checks)} failed.")
    return "\n".join(parts) + "\n"


def roofline(report: dict[str, Any], path: Path) -> None:
    """Operations a second over operations a byte, with what the machine can do as roof.

    Only products and searches are drawn: what moves each number once lies on the slope.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: dict[str, Any] = {}
    for row in report["device"]:
        if "error" not in row:
            rows.setdefault(row["name"], row)  # the first, which is the largest size
    copy = rows["copy"]["rate"]
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    x = [0.05 * 1.2**i for i in range(70)]
    for name, style in (("cuBLAS float32", "--"), ("cuBLAS bf16", "-")):
        if name in rows:
            top = rows[name]["rate"]
            roof = [min(top, copy * i) / 1e12 for i in x]
            axes.plot(x, roof, style, color="0.5", label=f"roof: copy, {name}")
    for name, (per_byte, label) in _POINTS.items():
        if name not in rows:
            continue
        row = rows[name]
        if per_byte is None:
            n = round((row["operations"] / 2) ** (1 / 3))
            size = 1 if "int8" in name else 2 if "bf16" in name else 4
            out = 4
            intensity = row["operations"] / (2 * n * n * size + n * n * out)
            rate = row["rate"]
        else:
            intensity, rate = per_byte, row["rate"] * per_byte
        (mark,) = axes.plot(intensity, rate / 1e12, "o", markersize=6)
        axes.annotate(
            label,
            (intensity, rate / 1e12),
            textcoords="offset points",
            xytext=_ASIDE.get(label, (6, -11)),
            fontsize=8,
            color=mark.get_color(),
        )
    axes.set(xscale="log", yscale="log", xlim=(0.06, 1e4), ylim=(0.1, 2000))
    axes.set_xlabel("operations a byte of device memory (least possible traffic)")
    axes.set_ylabel("10¹² operations a second")
    axes.set_title(f"{report['gpu']['name']}: kernels against what a copy and cuBLAS reach")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=110)


#: Labels that would lie on others.
_ASIDE = {"int4 x vector": (6, -3), "token statistics": (-90, 4)}
#: Operations a byte where the kernel is told in bytes; None where it is told in operations.
_POINTS: dict[str, tuple[float | None, str]] = {
    "vector_add": (1 / 12, "vector_add"),
    "silu": (5 / 8, "silu"),
    "token_statistics, k = 0": (9 / 4, "token statistics"),
    "cosine_topk int8, 1 queries, k = 10": (2.0, "top-k, 1 query"),
    "cosine_topk int8, 32 queries, k = 10": (64.0, "top-k, 32 queries"),
    "int4_times_vector awq": (4.0, "int4 x vector"),
    "matmul float32, tiled": (None, "float32 tiled"),
    "matmul float32, fast": (None, "float32 fast"),
    "matmul bf16, mma": (None, "bf16 mma"),
    "matmul int8, mma": (None, "int8 mma"),
    "matmul int8, dp4a": (None, "int8 dp4a"),
}
