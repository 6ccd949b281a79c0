/** "‹ 2/3 ›": which of several versions is shown. */

import { h } from "../core/dom.js";
import { icon } from "../core/icons.js";

/**
 * @param {string} what "question" or "answer"
 * @param {number} at the one that is shown, from 0
 * @param {number} count how many there are
 * @param {function(number): void} choose
 * @returns {Element}
 */
export function switcher(what, at, count, choose) {
  const step = (to, name, label) =>
    h(
      "button",
      {
        class: "square small",
        "aria-label": label,
        title: label,
        disabled: to < 0 || to >= count,
        onclick: () => choose(to),
      },
      icon(name),
    );
  return h(
    "span",
    { class: "switcher", role: "group", "aria-label": `Versions of the ${what}` },
    step(at - 1, "left", `Earlier version of the ${what}`),
    h("span", { class: "small" }, h("span", { class: "unseen" }, "Version "), `${at + 1}/${count}`),
    step(at + 1, "right", `Later version of the ${what}`),
  );
}
