/** A menu at a button: arrows move, Esc closes, a click elsewhere, too. */

import { h } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { opened } from "./overlays.js";

/**
 * Open a menu, or close the one that this button has open.
 * @param {Element} button
 * @param {{label: string, icon?: string, danger?: boolean, current?: boolean, run: function}[]} items
 */
export function openMenu(button, items) {
  if (opened.has(button)) return opened.get(button)();
  const end = new AbortController();
  const entries = items.map((item) =>
    h(
      "button",
      {
        role: item.current === undefined ? "menuitem" : "menuitemradio",
        "aria-checked": item.current === undefined ? null : String(item.current),
        class: item.danger ? "danger" : "",
        tabindex: "-1",
        onclick: () => (close(), item.run()),
      },
      item.icon && icon(item.icon),
      item.label,
    ),
  );
  const menu = h("div", { class: "menu", role: "menu", onkeydown: move }, entries);
  // All that is shown is in some landmark.
  const landmark = h("div", { role: "region", "aria-label": "Menu" }, menu);
  document.body.append(landmark);
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "true");
  opened.set(button, close);
  place(menu, button);
  entries[0]?.focus();
  const { signal } = end;
  const within = ({ target }) => menu.contains(target) || button.contains(target);
  addEventListener("pointerdown", (event) => within(event) || close(false), { signal, capture: true });
  addEventListener("resize", () => close(false), { signal });
  addEventListener("hashchange", () => close(false), { signal });

  function close(back = true) {
    end.abort();
    opened.delete(button);
    landmark.remove();
    button.setAttribute("aria-expanded", "false");
    if (back) button.focus();
  }

  function move(event) {
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) entries.at(to === entries.length ? 0 : to)?.focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function place(menu, button) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = at.bottom + height + 8 < innerHeight;
  menu.style.position = "fixed";
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  menu.style.top = `${Math.max(8, below ? at.bottom + 4 : at.top - height - 4)}px`;
}
