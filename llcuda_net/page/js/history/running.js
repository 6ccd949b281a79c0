/** What runs now, of any API: how far it is, where it waits, and the button that stops it. */

import { h, reconcile, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { addressOf, titleOf } from "./entry.js";

/** Rows that are shown at first. */
const FEW = 4;

/** The section; it is hidden while nothing runs. */
export function running(app) {
  const rows = h("ul", { role: "list", "aria-labelledby": "running-title" });
  const all = h("button", {
    class: "small muted",
    onclick: () => ((whole = !whole), show(app.store.get().live.runs)),
  });
  const title = h("h2", { id: "running-title", class: "small muted" }, "Running now");
  const element = h("section", { class: "running", hidden: true }, title, rows, all);
  let whole = false;

  function show(runs) {
    const found = Object.values(runs ?? {}).sort((a, b) => b.created - a.created);
    element.hidden = !found.length;
    all.hidden = found.length <= FEW;
    replace(all, whole ? "Show fewer" : `Show all ${found.length}`);
    reconcile(
      rows,
      whole ? found : found.slice(0, FEW),
      (run) => run.id,
      (run) => update(make(run), run),
      update,
    );
  }

  function make(run) {
    const button = h("button", { class: "square" }, icon("stop"));
    button.addEventListener("click", () => stop(app, button, run));
    const about = [h("span", { class: "pulse" }), h("span", { class: "ellipsis" })];
    const link = h(
      "a",
      { class: "entry" },
      h("span", { class: "entry-title ellipsis" }),
      h("span", { class: "entry-about muted small" }, about),
    );
    return h("li", { class: "entry-row" }, link, button);
  }

  function update(row, run) {
    const { firstChild: link, lastChild: button } = row;
    const name = titleOf(run);
    link.setAttribute("href", addressOf(run));
    button.setAttribute("aria-label", `Stop ${name}`);
    link.firstChild.textContent = name;
    link.lastChild.lastChild.textContent = link.title = how(run);
    return row;
  }

  app.store.watch((state) => state.live.runs, show);
  return element;
}

/** How a run is, in words. */
export function how({ state, phase, queue, model, tokens, tokens_per_second: rate }) {
  if (state === "queued" && queue) {
    const wait =
      queue.wait === null || queue.wait === undefined
        ? ""
        : `, about ${Math.max(1, Math.round(queue.wait))} s`;
    const place = queue.position ? `${queue.position} of ${queue.of} in the queue${wait}` : "waits";
    return [place, queue.reason].filter(Boolean).join(" · ");
  }
  if (phase === "prompt") return `reads the question · ${model}`;
  const speed = rate ? ` · ${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s` : "";
  return tokens ? `${tokens} tokens${speed} · ${model}` : `begins · ${model}`;
}

async function stop(app, button, run) {
  button.disabled = true;
  try {
    await app.api.post(`/v1/generations/${run.id}/cancel`);
    app.announce("Stopped.");
  } catch (error) {
    button.disabled = false;
    app.notify(`It was not stopped: ${error.message}`, { bad: true });
  }
}
