/** A question that must be answered. */

import { h } from "../core/dom.js";

/**
 * @param {string} question
 * @param {{yes?: string, detail?: string, danger?: boolean}} [words]
 * @returns {Promise<boolean>}
 */
export function confirmed(question, { yes = "Yes", detail = "", danger = false } = {}) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      {
        "aria-label": question,
        onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")),
      },
      h(
        "form",
        { method: "dialog", class: "stack" },
        h("h2", {}, question),
        detail && h("p", { class: "muted" }, detail),
        h(
          "div",
          { class: "row" },
          h("button", { value: "yes", class: danger ? "outline danger" : "primary" }, yes),
          h("button", { value: "no", class: "outline", autofocus: true }, "Cancel"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
