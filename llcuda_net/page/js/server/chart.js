/** Lines over the last two minutes, as SVG, with their figures in words. */

import { h, svg } from "../core/dom.js";
import { KEPT } from "./state.js";
import { setText } from "./table.js";

const WIDTH = 300;
const HEIGHT = 80;
/** Seconds without a sample that break a line. */
const GAP = 3;

/**
 * @param {string} title
 * @param {Object<string, string>} lines one or two: what each is, and its key in a sample
 * @param {function(number): string} format
 * @returns {{element: Element, show: function(Object[]): void}} shows samples, oldest first
 */
export function chart(title, lines, format) {
  const names = Object.keys(lines);
  const paths = names.map((_, at) => svg("path", { class: `line line-${at}` }));
  const area = svg("path", { class: "area" });
  const grid = svg("path", { class: "grid", d: `M0 ${HEIGHT / 2}H${WIDTH}M0 ${HEIGHT}H${WIDTH}` });
  const picture = svg(
    "svg",
    {
      class: "chart",
      viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`,
      preserveAspectRatio: "none",
      role: "img",
    },
    [grid, area, ...paths],
  );
  const top = h("span", { class: "muted small" });
  const now = names.map(() => h("b"));
  const legend = names.map((name, at) =>
    h(
      "span",
      {},
      now[at],
      " ",
      h("span", { class: "muted small" }, h("i", { class: `key line-${at}` }), name),
    ),
  );
  const element = h(
    "figure",
    { class: "card" },
    h("figcaption", { class: "row spread" }, h("h3", {}, title), top),
    h("div", { class: "row" }, legend),
    picture,
    h(
      "div",
      { class: "row spread muted small" },
      h("span", {}, "2 minutes ago"),
      h("span", {}, "now"),
    ),
  );

  function show(samples) {
    const values = Object.values(lines).map((key) => samples.map((one) => one[key]));
    const most = roundUp(Math.max(0, ...values.flat().filter(Number.isFinite)));
    const end = samples.at(-1)?.at ?? 0;
    values.forEach((line, number) => {
      const runs = runsOf(samples, line).map((run) => run.map(([at, value]) => point(at, value)));
      paths[number].setAttribute("d", runs.map(drawn).join(""));
      if (names.length === 1) area.setAttribute("d", runs.map(filled).join(""));
      setText(now[number], format(line.findLast(Number.isFinite)));
    });
    setText(top, most ? `top: ${format(most)}` : "");
    picture.setAttribute("aria-label", described(title, names, values, format));

    function point(at, value) {
      const y = HEIGHT * (1 - value / (most || 1));
      return `${(WIDTH * (1 - (end - at) / KEPT)).toFixed(1)} ${y.toFixed(1)}`;
    }
  }

  show([]);
  return { element, show };
}

/** The parts of a line without a gap, each a list of [at, value]. */
function runsOf(samples, values) {
  const runs = [];
  let last = -Infinity;
  samples.forEach(({ at }, number) => {
    if (!Number.isFinite(values[number])) return;
    if (at - last > GAP) runs.push([]);
    runs.at(-1).push([at, values[number]]);
    last = at;
  });
  return runs;
}

/** A value that stands alone would not be seen: it is drawn as a dot. */
const drawn = (run) => `M${run.join("L")}${run.length === 1 ? "h0.01" : ""}`;

const filled = (run) => `M${run[0].split(" ")[0]} ${HEIGHT}L${run.join("L")}V${HEIGHT}Z`;

/** The next 1, 2 or 5 times a power of ten. */
export function roundUp(value) {
  if (value <= 0) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value - 1e-9);
}

function described(title, names, values, format) {
  const said = names.map((name, at) => {
    const known = values[at].filter(Number.isFinite);
    if (known.length === 0) return `${name}: nothing yet`;
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const figures = {
      now: known.at(-1),
      least: Math.min(...known),
      mean,
      most: Math.max(...known),
    };
    return `${name}: ${Object.entries(figures)
      .map(([what, value]) => `${what} ${format(value)}`)
      .join(", ")}`;
  });
  return `${title}, the last two minutes. ${said.join("; ")}.`;
}
