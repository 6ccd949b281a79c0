/** The upstreams, each with a small square for every slot. */

import { h, reconcile } from "../core/dom.js";
import { count, figure, plural } from "./format.js";
import { setText } from "./table.js";

/** Slots of an upstream that are drawn. */
const DRAWN = 256;
const TONES = { up: "good", down: "bad", unloaded: "", unloading: "" };

/** @returns {{element: Element, show: function(Object): void}} shows a status */
export function upstreams() {
  const element = h("ul", { class: "plain stack" });
  return {
    element,
    show: (status) => reconcile(element, status.upstreams, (one) => one.name, make, update),
  };
}

function make(upstream) {
  const parts = {
    state: h("span"),
    model: h("span", { class: "muted ellipsis" }),
    speed: h("span", { class: "end" }),
    slots: h("div", { class: "slots", role: "img" }),
    taken: h("span"),
    faults: h("span", { class: "muted end" }),
    reason: h("p", { class: "small warn-text" }),
  };
  const name = h("h3", { class: "ellipsis" }, upstream.name);
  const line = h(
    "li",
    { class: "card stack" },
    h("div", { class: "row" }, name, parts.state, parts.model, parts.speed),
    parts.slots,
    h("div", { class: "row small" }, parts.taken, parts.faults),
    parts.reason,
  );
  line.parts = parts;
  update(line, upstream);
  return line;
}

function update({ parts }, upstream) {
  const slots = (upstream.slots_detail ?? []).slice(0, DRAWN);
  const taken = takenText(upstream);
  setText(parts.state, upstream.state);
  parts.state.className = `chip ${TONES[upstream.state] ?? "warn"}`;
  setText(parts.model, upstream.model ?? "");
  setText(parts.speed, `${figure(upstream.tokens_per_second)} tokens/s`);
  setText(parts.taken, taken);
  setText(parts.faults, faultsText(upstream));
  setText(parts.reason, upstream.reason ?? "");
  parts.reason.hidden = !upstream.reason;
  parts.slots.hidden = slots.length === 0;
  parts.slots.setAttribute("aria-label", taken);
  reconcile(parts.slots, slots, (slot) => slot.id, makeSlot, updateSlot);
}

const makeSlot = (slot) => updateSlot(h("i"), slot);

function updateSlot(square, { id, state, user }) {
  const title = `slot ${id}: ${state}${user ? ` (${user})` : ""}`;
  if (square.title === title) return square;
  square.className = `slot ${state}`;
  square.title = title;
  return square;
}

/** "3 of 8 slots busy, 1 used by others". */
function takenText({ slots, busy, releasing, foreign }) {
  if (!slots) return "Its slots are not known now.";
  const more = [
    releasing && `${count(releasing)} being released`,
    foreign && `${count(foreign)} used by others`,
    slots > DRAWN && `${DRAWN} are drawn`,
  ];
  return [`${count(busy)} of ${plural(slots, "slot")} busy`, ...more.filter(Boolean)].join(", ");
}

function faultsText({ context, failures, failovers, restarts }) {
  const parts = [
    context && `context ${count(context)}`,
    failures && plural(failures, "failure"),
    failovers && plural(failovers, "failover"),
    restarts && plural(restarts, "restart"),
  ];
  return parts.filter(Boolean).join(", ");
}
