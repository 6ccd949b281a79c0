/** A list of any length: only rows that are seen are in the document. All are equally high. */

import { h, reconcile, replace } from "../core/dom.js";
import { timeOf } from "./entry.js";
import { indexOf, sizeOf, slice } from "./list.js";
import { entryRow, showCurrent, showEntry } from "./rows.js";
import { dayOf } from "./text.js";

/** Height of a row in rem; rows beyond what is seen, on each side; ms between looks at ages. */
const ROW = 3.3,
  BEYOND = 6,
  AGES = 20_000;

/**
 * @param {Object} app
 * @param {Object} loads see loads.js
 * @param {string} name of the list in the slice
 * @param {{label: string, empty: function(): Node}} words
 */
export function listView(app, loads, name, { label, empty }) {
  const { store } = app;
  const state = () => store.get().history[name];
  const day = h("div", { class: "day muted small", "aria-hidden": "true" });
  const rows = h("ul", { class: "rows", role: "list", "aria-label": label });
  const note = h("div", { class: "note" });
  const scroller = h("div", { class: "list", onscroll: soon, onkeydown: move }, rows, note);
  const element = h("div", { class: "list-box" }, day, scroller);
  let height = 0; // of a row, in pixels
  let list = state(); // as it is shown
  let active = { id: null, index: 0 }; // the row that Tab comes to
  let wanted = null; // the index of a row that is to be focused once it is here
  let due = 0;

  rows.addEventListener("focusin", (event) => {
    wanted = null;
    const row = event.target.closest(".entry-row");
    if (row?.entry) active = { id: row.entry.id, index: row.index };
    tabStops();
  });

  function soon() {
    due ||= requestAnimationFrame(() => ((due = 0), draw()));
  }

  /** Show another state of the list; what is seen stays where it is, but for the beginning. */
  function show(next) {
    const top = height ? scroller.scrollTop / height : 0;
    const at = Math.floor(top);
    const before = list;
    list = next;
    if (next.key !== before.key) {
      scroller.scrollTop = 0;
      active = { id: null, index: 0 };
    } else if (top >= 1 && next.pages !== before.pages) {
      const seen = slice(before, at, at + 20).filter(Boolean);
      for (const entry of seen) {
        const moved = indexOf(next, entry.id);
        if (moved < 0) continue;
        const by = moved - indexOf(before, entry.id);
        size();
        if (by) scroller.scrollTop += by * height;
        break;
      }
    }
    draw();
  }

  function size() {
    // One row more while there is more: it says so, and its place is scrolled to.
    rows.style.height = `${(sizeOf(list) + (list.more && list.pages.length ? 1 : 0)) * height}px`;
  }

  function draw() {
    if (!element.isConnected || !scroller.clientHeight) return;
    if (!height) {
      height = Math.round(ROW * parseFloat(getComputedStyle(document.documentElement).fontSize));
      rows.style.setProperty("--row", `${height}px`);
    }
    size();
    const count = sizeOf(list);
    const first = Math.max(0, Math.floor(scroller.scrollTop / height) - BEYOND);
    const end = Math.min(
      count,
      Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + BEYOND,
    );
    const shown = slice(list, first, end).map((entry, place) => ({ entry, index: first + place }));
    withFocused(shown, first, end);
    reconcile(
      rows,
      shown,
      ({ entry, index }) => entry?.id ?? `#${index}`,
      (item) => put(entryRow(app, item.entry), item, count),
      (row, item) => (showEntry(row, item.entry), put(row, item, count)),
    );
    showCurrent(rows.children, store.get().route);
    const at = Math.floor(scroller.scrollTop / height);
    const top = slice(list, at, at + 20).find(Boolean);
    replace(day, top && (top.pinned ? "Pinned" : dayOf(timeOf(top))));
    tabStops();
    if (wanted !== null) focus(wanted);
    said(count);
    loads.see(name, first, end);
  }

  function put(row, { index }, count) {
    if (row.index !== index || row.count !== count) {
      row.index = index;
      row.count = count;
      row.style.top = `${index * height}px`;
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-setsize", list.more ? -1 : count);
    }
    return row;
  }

  /** The row with the focus stays, also where it is not seen. */
  function withFocused(shown, first, end) {
    const row = document.activeElement?.closest?.(".entry-row");
    if (!row || row.parentNode !== rows || !row.entry) return;
    const index = indexOf(list, row.entry.id);
    if (index < 0 || (index >= first && index < end)) return;
    const [entry] = slice(list, index, index + 1);
    if (index < first) shown.unshift({ entry, index });
    else shown.push({ entry, index });
  }

  function tabStops() {
    const all = [...rows.children].filter((row) => row.entry);
    const stop = all.find((row) => row.entry.id === active.id) ?? all[0];
    for (const row of all) {
      const tabindex = row === stop ? "0" : "-1";
      row.firstChild.tabIndex = row.lastChild.tabIndex = tabindex;
    }
  }

  function said(count) {
    const { error, more } = list;
    note.hidden = count > 0 && !error;
    if (error) {
      const again = h(
        "button",
        { class: "outline", onclick: () => loads.retry(name) },
        "Try again",
      );
      replace(note, h("p", { role: "alert" }, `The list cannot be read: ${error}`), again);
    } else if (!count) replace(note, more ? "Loading…" : empty());
  }

  function move(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.tagName === "INPUT") return;
    const page = Math.max(1, Math.floor(scroller.clientHeight / height) - 1);
    const at = wanted ?? event.target.closest(".entry-row")?.index ?? active.index;
    const to = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: sizeOf(list) - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focus(Math.max(0, Math.min(to, sizeOf(list) - 1)));
  }

  /** Focus the row of an index; as soon as it is here, if it is not. */
  function focus(index) {
    wanted = null;
    const top = index * height;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + height > scroller.scrollTop + scroller.clientHeight) {
      scroller.scrollTop = top + height - scroller.clientHeight;
    }
    const find = () => [...rows.children].find((row) => row.index === index);
    if (!find()) draw();
    const row = find();
    if (row?.entry) row.firstChild.focus({ preventScroll: true });
    else wanted = index;
  }

  store.watch((all) => all.history[name], show);
  store.watch((all) => all.route, soon);
  new ResizeObserver(() => ((height = 0), soon())).observe(scroller);
  setInterval(() => document.hidden || soon(), AGES);

  return {
    element,
    focus: () => focus(Math.max(0, active.id === null ? 0 : indexOf(list, active.id))),
    draw: soon,
  };
}
