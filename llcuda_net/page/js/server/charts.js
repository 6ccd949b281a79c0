/** The last two minutes: charts, and the same as a table. */

import { h } from "../core/dom.js";
import { chart } from "./chart.js";
import { clock, count, figure, milliseconds } from "./format.js";
import { table } from "./table.js";

/** Seconds of a row in the table. */
const ROW = 5;

/** @returns {{element: Element, show: function(Object[]): void}} shows samples, oldest first */
export function charts() {
  const all = [
    chart("Tokens per second", { made: "tokens_per_second" }, figure),
    chart("Requests", { running: "running", waiting: "queued" }, count),
    chart("Until the first token", { mean: "first_token" }, milliseconds),
  ];
  const figures = table(
    `The last two minutes: each row is the mean of ${ROW} seconds`,
    [
      ["Until", (one) => clock(one.at)],
      ["Tokens/s", (one) => figure(one.tokens_per_second), "figure"],
      ["Running", (one) => figure(one.running), "figure"],
      ["Waiting", (one) => figure(one.queued), "figure"],
      ["Slots busy", (one) => figure(one.busy), "figure wide"],
      ["First token", (one) => milliseconds(one.first_token), "figure"],
    ],
    (one) => one.at,
  );
  const summary = h("summary", {}, "The same as a table");
  const details = h("details", { ontoggle: () => show(last) }, summary, figures.element);
  let last = [];

  function show(samples) {
    last = samples;
    for (const one of all) one.show(samples);
    if (details.open) figures.show(rows(samples));
  }

  const title = h("h2", { class: "unseen" }, "The last two minutes");
  const row = h(
    "div",
    { class: "charts" },
    all.map(({ element }) => element),
  );
  return { element: h("section", { class: "stack" }, title, row, details), show };
}

/** Means of a few seconds each, the latest first. */
export function rows(samples) {
  const groups = new Map();
  for (const one of samples) {
    const end = ROW * Math.ceil(one.at / ROW);
    groups.set(end, [...(groups.get(end) ?? []), one]);
  }
  const row = ([at, group]) => ({ ...means(group), at });
  return [...groups].reverse().map(row);
}

function means(group) {
  const mean = (key) => {
    const known = group.map((one) => one[key]).filter(Number.isFinite);
    return known.reduce((sum, value) => sum + value, 0) / known.length; // of none: NaN
  };
  return Object.fromEntries(Object.keys(group[0]).map((key) => [key, mean(key)]));
}
