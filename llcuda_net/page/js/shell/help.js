/** The dialog that lists the shortcuts. */

import { h } from "../core/dom.js";
import { shortcuts } from "../core/keys.js";

const NAMES = { mod: navigator.platform.startsWith("Mac") ? "⌘" : "Ctrl", alt: "Alt", shift: "Shift", Escape: "Esc" };

/** Show it; Esc closes it. */
export function helpDialog() {
  const rows = shortcuts().map(({ keys, label }) => [
    h("dt", {}, keys.split("+").map((key) => [h("kbd", {}, NAMES[key] ?? key), " "])),
    h("dd", {}, label),
  ]);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "help-title", onclose: () => dialog.remove() },
    h("h2", { id: "help-title" }, "Keyboard shortcuts"),
    h("dl", { class: "shortcuts" }, rows),
    h("form", { method: "dialog" }, h("button", { class: "outline" }, "Close")),
  );
  document.body.append(dialog);
  dialog.showModal();
}
