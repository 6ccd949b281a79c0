/** The settings of a conversation, beside it; on phones above it. */

import { h } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { settingsForm } from "./settings_form.js";

/**
 * @param {object} app
 * @param {{read: function(): object, keep: function(?object): void}} options read: what holds now;
 *   keep: what was set, null: as the last answer had it
 * @returns {{element: Element, button: Element, refresh: function(): void}}
 */
export function settingsPanel(app, { read, keep }) {
  const form = settingsForm({
    note: "For the next questions here. They begin as the last answer had them.",
    change: keep,
    reset: () => (keep(null), form.set(read())),
  });
  const button = h(
    "button",
    {
      class: "square",
      "aria-label": "Settings of this conversation",
      title: "Settings of this conversation",
      "aria-expanded": "false",
      onclick: () => toggle(element.hidden),
    },
    icon("settings"),
  );
  const element = h(
    "aside",
    { class: "panel", hidden: true, "aria-label": "Settings of this conversation" },
    h(
      "div",
      { class: "row spread" },
      h("h2", {}, "Settings"),
      h(
        "button",
        { class: "square", "aria-label": "Close the settings", onclick: () => toggle(false) },
        icon("close"),
      ),
    ),
    form.element,
  );
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    toggle(false);
  });

  function toggle(open) {
    element.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (!open) return button.focus();
    form.set(read());
    element.querySelector("textarea").focus();
  }

  return {
    element,
    button,
    refresh: () => element.hidden || element.contains(document.activeElement) || form.set(read()),
  };
}
