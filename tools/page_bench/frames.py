"""How smooth a page is: the time between frames, tasks of more than 50 ms, CPU per frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import CDPSession, Page

from llcuda_net.util.quantile import quantile

#: Milliseconds of a frame at 60 Hz; one that takes longer than two was seen as a stutter.
FRAME = 1000 / 60
#: Collects while `__frames.on`; runs before the page's own scripts.
SCRIPT = """
(() => {
  const kept = (globalThis.__frames = { on: false, last: 0, gaps: [], tasks: [] });
  new PerformanceObserver((list) => {
    if (kept.on) kept.tasks.push(...list.getEntries().map((one) => one.duration));
  }).observe({ type: "longtask" });
  function frame(now) {
    if (kept.on && kept.last) kept.gaps.push(now - kept.last);
    kept.last = now;
    requestAnimationFrame(frame);
  }
  requestAnimationFrame(frame);
})();
"""


@dataclass
class Frames:
    """Milliseconds between frames, and of long tasks.

    Attributes:
        cpu_ms: CPU time of the page's main thread, which other processes do not lengthen.
    """

    gaps: list[float] = field(default_factory=list)
    tasks: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Their quantiles."""
        late = sum(gap > 2.5 * FRAME for gap in self.gaps)
        return {
            "frames": len(self.gaps),
            "p50_ms": _rounded(quantile(self.gaps, 0.5)),
            "p95_ms": _rounded(quantile(self.gaps, 0.95)),
            "p99_ms": _rounded(quantile(self.gaps, 0.99)),
            "longest_ms": _rounded(max(self.gaps, default=None)),
            "stutters": late,
            "long_tasks": len(self.tasks),
            "longest_task_ms": _rounded(max(self.tasks, default=None)),
            "cpu_ms_per_frame": _rounded(self.cpu_ms / len(self.gaps)) if self.gaps else None,
        }


@contextmanager
def watching(page: Page) -> Iterator[Frames]:
    """The frames of a page within the block; filled in when it ends."""
    found = Frames()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = _cpu(session)
    page.evaluate("Object.assign(__frames, { on: true, last: 0, gaps: [], tasks: [] })")
    yield found
    kept = page.evaluate("(__frames.on = false, { gaps: __frames.gaps, tasks: __frames.tasks })")
    found.gaps, found.tasks = kept["gaps"], kept["tasks"]
    found.cpu_ms = 1000 * (_cpu(session) - before)
    session.detach()


def _cpu(session: CDPSession) -> float:
    """Seconds that the page's main thread has computed since this was enabled."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
