"""What stands below an answer."""

from __future__ import annotations

from tests.support.browser.modules import Run


def test_one_that_runs_is_watched_once(js: Run) -> None:
    """Its speed is shown, whatever its state was before, and not looked at when it is over."""
    body = """
    const { footer } = await load("footer");
    const watching = new Set();
    const watch = (select, show, signal) => {
      watching.add(show);
      signal.addEventListener("abort", () => watching.delete(show));
      show(2);
    };
    const app = { store: { watch } };
    const { element, show } = footer(app, {}, new AbortController().signal);
    const states = ["queued", "in_progress", "queued", "in_progress", "completed"];
    return states.map((status) => {
      show({ id: "resp_1", status, model: "demo" }, null);
      return [watching.size, element.textContent];
    });
    """
    found = js(body, None)
    assert [number for number, _ in found] == [1, 1, 1, 1, 0]
    assert all("tokens/s" in text for _, text in found[:4])
