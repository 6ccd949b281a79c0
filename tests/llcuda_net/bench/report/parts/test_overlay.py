"""Several runs on one page."""

from __future__ import annotations

import re

from llcuda_net.bench.report.parts.overlay import overlay
from llcuda_net.bench.statistics import compare
from tests.support import bench_documents


def test_two_sweeps_share_axes_and_have_verdicts() -> None:
    old = bench_documents.throughput(rounds=2)
    new = bench_documents.throughput(2, first=0.060, rounds=2)
    new["settings"]["max_tokens"] = 25
    changes = compare.compare(old["repetitions"], new["repetitions"])
    told = {"obstacles": ["max_tokens differs"], "changes": [c.as_dict() for c in changes]}
    page = overlay([old, new], ["old.json", "<new>.json"], [told])
    heads = re.findall("<h2>(.*?)</h2>", page)
    assert heads == [
        *("The runs", "Beside each other", "B: &lt;new&gt;.json against the first"),
        *("Settings that differ", "How they were run"),
    ]
    assert page.count("<svg") == 6
    assert "B: &lt;new&gt;.json: max_tokens differs" in page
    assert "<new>" not in page
    assert all(change.figure in page for change in changes)


def test_different_measurements_have_no_axes_in_common() -> None:
    sweep = bench_documents.throughput(rounds=1)
    alone = bench_documents.latency(direct=False)
    page = overlay([sweep, alone])
    assert "<svg" not in page
    assert "2 runs of latency and throughput" in page
