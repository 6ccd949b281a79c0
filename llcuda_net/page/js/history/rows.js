/** The rows of lists and of what a search finds. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { openActions } from "./actions.js";
import { addressOf, isConversation, timeOf, titleOf } from "./entry.js";
import { ageOf, marked, timeElement } from "./text.js";

const STATES = {
  queued: "waits",
  running: "is written",
  done: "",
  failed: "failed",
  cancelled: "stopped",
  interrupted: "interrupted",
};

/** A row of an entry, with the button for what can be done with it. */
export function entryRow(app, entry) {
  const link = h("a", { class: "entry" });
  const more = h("button", { class: "square more" }, icon("more"));
  const row = h("li", { class: "entry-row" }, link, more);
  const open = (event) => {
    event.preventDefault();
    openActions(app, row, row.entry);
  };
  more.addEventListener("click", open);
  row.addEventListener("contextmenu", (event) => event.target.tagName === "INPUT" || open(event));
  row.addEventListener("keydown", (event) => {
    const action = { F2: "rename", Delete: "delete" }[event.key];
    if (!action || event.target !== link) return;
    event.preventDefault();
    openActions(app, row, row.entry, action);
  });
  showEntry(row, entry);
  return row;
}

/** Show an entry in a row of its own; null: it is being fetched. */
export function showEntry(row, entry) {
  const before = row.entry;
  row.entry = entry;
  if (before !== undefined && same(before, entry)) return age(row, entry);
  const { firstChild: link, lastChild: more } = row;
  row.classList.toggle("blank", !entry);
  more.hidden = !entry;
  if (!entry) return replace(link, h("span", { class: "entry-title" }, "…"));
  const title = titleOf(entry);
  link.setAttribute("href", addressOf(entry));
  more.setAttribute("aria-label", `Actions for ${title}`);
  replace(
    link,
    h("span", { class: "entry-title ellipsis" }, entry.pinned && icon("pin"), title),
    h("span", { class: "entry-about muted small" }, about(entry)),
  );
}

/** Mark the rows of what is open. */
export function showCurrent(rows, route) {
  for (const row of rows) {
    const { entry } = row;
    const open =
      entry &&
      (route.view === "c"
        ? entry.id === route.id ||
          (entry.conversation === route.id && route.query.answer === `resp_${entry.id}`)
        : route.view === "a" && entry.id === route.id);
    if (open) row.firstChild.setAttribute("aria-current", "page");
    else row.firstChild.removeAttribute("aria-current");
  }
}

function same(one, other) {
  return (
    one === other || (one && other && Object.keys(other).every((name) => one[name] === other[name]))
  );
}

function age(row, entry) {
  const element = row.querySelector("time");
  if (!element) return;
  const now = ageOf(timeOf(entry));
  if (element.textContent !== now) element.textContent = now;
}

function about(entry) {
  const time = timeElement(timeOf(entry));
  if (isConversation(entry)) {
    const { entries } = entry;
    return [
      h(
        "span",
        { class: "ellipsis" },
        entries > 0 && `${entries} ${entries === 1 ? "turn" : "turns"}`,
      ),
      time,
    ];
  }
  const state = STATES[entry.state] ?? entry.state;
  return [
    state && h("span", { class: `state ${entry.state}` }, state),
    h("span", { class: "ellipsis" }, [entry.model, entry.owner].filter(Boolean).join(" · ")),
    time,
  ];
}

/** A row of a hit of a search, with the excerpts in which the words are marked. */
export function hitRow(app, hit) {
  const row = entryRow(app, hit);
  row.classList.add("hit");
  const { prompt, text } = hit.matches ?? {};
  const [title] = row.firstChild.children;
  const whole = prompt?.excerpt === hit.preview; // else it is of a longer prompt
  if (whole) replace(title, marked(prompt.excerpt, prompt.highlights));
  const shown = [text, !whole && prompt].find((one) => one?.highlights?.length) ?? text;
  const below = shown ? marked(shown.excerpt, shown.highlights) : hit.text;
  if (below?.length) title.after(h("span", { class: "excerpt small" }, below));
  return row;
}
