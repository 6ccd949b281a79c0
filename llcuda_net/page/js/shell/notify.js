/** What is said once: toasts that are seen, announcements that screen readers read. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";

const SECONDS = 7;

/**
 * @returns {{announce: function(string): void, notify: function, clear: function(): void,
 *   elements: Element[]}}
 *   `notify(text, { bad, action: { label, run } })` shows a toast; errors stay until closed
 */
export function createNotices() {
  const toasts = h("div", { class: "toasts", role: "region", "aria-label": "Messages" });
  const polite = h("div", { class: "unseen", "aria-live": "polite" });

  function announce(text) {
    replace(polite, text);
  }

  function notify(text, { bad = false, action } = {}) {
    const close = () => toast.remove();
    const toast = h(
      "div",
      { class: bad ? "toast bad" : "toast", role: bad ? "alert" : "status" },
      h("span", {}, text),
      action && h("button", { class: "outline", onclick: () => (close(), action.run()) }, action.label),
      h("button", { class: "square", "aria-label": "Close the message", onclick: close }, icon("close")),
    );
    toasts.append(toast);
    if (!bad) setTimeout(close, SECONDS * 1000);
    return close;
  }

  function clear() {
    replace(toasts);
    replace(polite);
  }

  return { announce, notify, clear, elements: [toasts, polite] };
}
