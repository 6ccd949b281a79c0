/** Tables and lists of facts that change in place, so that focus and selection stay. */

import { h, reconcile } from "../core/dom.js";

/** Put a text where another one is; the document is touched only where it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {string} caption names it for screen readers
 * @param {[string, function(Object): (string|Element), string?][]} columns head, content of a
 *   row, classes: `figure`; `wide`, which is left out on phones
 * @param {function(Object): any} key names a row
 * @returns {{element: Element, show: function(Object[]): void}}
 */
export function table(caption, columns, key) {
  const body = h("tbody");
  const heads = columns.map(([name, , kind]) => h("th", { scope: "col", class: kind }, name));
  const element = h(
    "div",
    { class: "data-table", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", { "aria-label": caption }, h("thead", {}, h("tr", {}, heads)), body),
  );

  function make(row) {
    const cell = ([, content, kind], at) =>
      h(at ? "td" : "th", { class: kind, scope: at ? null : "row" }, content(row));
    return h("tr", {}, columns.map(cell));
  }

  function update(line, row) {
    columns.forEach(([, content], at) => {
      const cell = line.children[at];
      const made = content(row);
      if (!(made instanceof Node)) setText(cell, made);
      else if (cell.firstChild !== made) cell.replaceChildren(made);
    });
  }

  return { element, show: (rows) => reconcile(body, rows, key, make, update) };
}

/**
 * A list of names and values: `show([[name, value, classes], …])`; without a value, none is shown.
 * @returns {{element: Element, show: function(Array[]): void}}
 */
export function facts(style) {
  const element = h("dl", { class: style });
  const make = (fact) => update(h("div", {}, h("dt", {}, fact[0]), h("dd")), fact);
  function update(line, [, value, kind = ""]) {
    setText(line.lastChild, value);
    line.lastChild.className = kind;
    return line;
  }
  const name = ([first]) => first;
  const known = ([, value]) => value !== undefined && value !== null;
  return { element, show: (rows) => reconcile(element, rows.filter(known), name, make, update) };
}
