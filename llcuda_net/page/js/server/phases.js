/** Where the time of requests went: means of those that ended lately, or since the start. */

import { h } from "../core/dom.js";
import { milliseconds, plural } from "./format.js";
import { setText } from "./table.js";

/** Parts of a request in their order: phases that do not overlap. */
const PARTS = {
  "Waiting for a slot": ["queue"],
  Preparing: ["template", "connect"],
  "Reading the prompt": ["first_token"],
  Writing: ["generation"],
  Storing: ["persist"],
};

/** @returns {{element: Element, show: function(Object): void}} shows a status */
export function phases() {
  const head = h("p", { class: "muted small" });
  const bars = Object.keys(PARTS).map(() => h("i"));
  const values = bars.map(() => h("dd"));
  const row = (name, at) => [
    h("dt", {}, name),
    h("dd", { class: "track", "aria-hidden": "true" }, bars[at]),
    values[at],
  ];
  const list = h("dl", { class: "phases" }, Object.keys(PARTS).map(row));
  return {
    element: h("div", {}, head, list),
    show({ phases: { recent, all } }) {
      const { requests, ms } = recent.requests ? recent : all;
      const when = recent.requests ? "in the last two minutes" : "since the start";
      const said = `The mean of ${plural(requests, "request")} that ended ${when}.`;
      setText(head, requests ? said : "No request has ended yet.");
      list.hidden = !requests;
      const sum = (names) => names.reduce((so, name) => so + (ms[name] ?? 0), 0);
      const total = sum(Object.values(PARTS).flat()) || 1;
      Object.values(PARTS).forEach((names, at) => {
        const part = `${Math.round((100 * sum(names)) / total)}%`;
        bars[at].style.width = part;
        setText(values[at], `${milliseconds(sum(names) / (requests || 1))} (${part})`);
      });
    },
  };
}
