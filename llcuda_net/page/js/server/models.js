/** The models, whether they are loaded, and buttons that load and unload them. */

import { h } from "../core/dom.js";
import { bytes, count, span } from "./format.js";
import { setText, table } from "./table.js";

/** @returns {{element: Element, show: function(Object): void}} shows a status */
export function models(app, signal) {
  const buttons = new Map();
  const held = h("p", { class: "muted small" });
  let admin = false;
  const list = table(
    "Models",
    [
      ["Model", (one) => `${one.name}${one.default ? " (default)" : ""}`],
      ["State", stateText],
      [
        "Slots free",
        (one) => (one.slots ? `${count(one.free)} of ${count(one.slots)}` : "–"),
        "figure",
      ],
      ["Waiting", (one) => count(one.waiting), "figure wide"],
      ["Context", (one) => count(one.context), "figure wide"],
      ["Memory", (one) => bytes(one.memory + (one.gpu_memory ?? 0)), "figure wide"],
      ["Load or unload", button],
    ],
    (one) => one.name,
  );

  function button({ name, presence }) {
    if (!admin || !presence) return "";
    if (!buttons.has(name)) {
      buttons.set(name, h("button", { class: "outline small", onclick: () => change(name) }));
    }
    const found = buttons.get(name);
    setText(found, ["loaded", "loading"].includes(presence) ? "Unload" : "Load");
    found.setAttribute("aria-label", `${found.textContent} ${name}`);
    return found;
  }

  async function change(model) {
    const asked = buttons.get(model);
    if (asked.ariaDisabled) return;
    asked.ariaDisabled = "true"; // `disabled` would lose the focus
    const what = asked.textContent.toLowerCase();
    try {
      await app.api.post(`/models/${what}`, { model }, { signal });
      const then = what === "load" ? "is being loaded." : "is unloaded once its requests are over.";
      app.announce(`${model} ${then}`);
    } catch (error) {
      if (!signal.aborted) app.notify(`${model}: ${error.message}`, { bad: true });
    } finally {
      asked.ariaDisabled = null;
    }
  }

  return {
    element: h("div", {}, list.element, held),
    show(status) {
      admin = status.admin;
      list.show(status.models);
      const of = status.model_memory ?? {};
      const parts = [
        heldText("memory", of.memory, of.memory_limit),
        heldText("GPU memory", of.gpu_memory, of.gpu_memory_limit),
      ];
      setText(held, parts.filter(Boolean).join(" "));
    },
  };
}

/** "loading, about 4 s: …": why one that is not loaded is not. */
function stateText({ presence, slots, error, reason, ready_in }) {
  if (!presence) return slots ? "served" : "not served";
  const why = presence === "loaded" ? "" : error || reason;
  const wait = Number.isFinite(ready_in) ? `, about ${span(ready_in)}` : "";
  return `${presence}${wait}${why && why !== "not loaded" ? `: ${why}` : ""}`;
}

function heldText(of, taken, most) {
  if (!taken && !most) return "";
  return `Models take ${bytes(taken)}${most ? ` of at most ${bytes(most)}` : ""} of ${of}.`;
}
