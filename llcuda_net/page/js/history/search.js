/** The search box, and what it finds: conversations by title, answers by words and by meaning. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { bind } from "../core/keys.js";
import { hitRow, showCurrent } from "./rows.js";

const PARTS = { titles: "Conversations", words: "By words", meaning: "By meaning" };

const SLOW = {
  meaning:
    "Searching… The first search of a server by meaning may take a minute; the next ones do not.",
};

/**
 * @param {function(): void} down the arrow goes down from the box, and nothing is searched
 * @returns {{box: Element, results: Element}}
 */
export function search(app, loads, down) {
  const { store } = app;
  const input = h("input", {
    type: "search",
    placeholder: "Search the history",
    "aria-label": "Search the history by words and by meaning",
    "aria-keyshortcuts": "Control+K /",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 1000,
    oninput: () => loads.search(input.value.trim()),
    onkeydown: keys,
  });
  const boxes = {};
  for (const name of Object.keys(PARTS)) boxes[name] = { element: h("div") };
  const elements = Object.values(boxes).map(({ element }) => element);
  const results = h("div", { class: "list results", onkeydown: move }, elements);
  const box = h("div", { class: "search", role: "search" }, icon("search"), input);

  function keys(event) {
    if (event.isComposing) return;
    if (event.key === "Escape" && input.value) {
      input.value = "";
      loads.search("");
    } else if (event.key === "Enter") loads.search(input.value.trim(), { now: true });
    else if (event.key === "ArrowDown") results.hidden ? down() : links()[0]?.focus();
    else return;
    event.preventDefault();
  }

  const links = () => [...results.querySelectorAll(".entry")];

  function move(event) {
    if (event.target.tagName === "INPUT" && event.target !== input) return;
    const all = links();
    const at = all.indexOf(event.target.closest(".entry-row")?.firstChild);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape" || to === -1) input.focus();
    else if (to === undefined) return;
    else all[Math.min(to, all.length - 1)].focus();
    event.preventDefault();
  }

  function show({ text, parts }) {
    results.hidden = !text;
    if (!text && input.value.trim()) input.value = ""; // somebody else has signed in
    const seen = new Set();
    for (const [name, box] of Object.entries(boxes)) {
      const hits = (parts[name]?.hits ?? []).filter((hit) => !seen.has(hit.id));
      for (const hit of hits) seen.add(hit.id);
      if (box.part === parts[name] && box.count === hits.length) continue;
      Object.assign(box, { part: parts[name], count: hits.length });
      refill(box.element, parts[name] && section(name, parts[name], hits));
    }
    showCurrent(results.querySelectorAll(".entry-row"), store.get().route);
    const over = Object.keys(PARTS).every((name) => parts[name] && !parts[name].loading);
    if (text && over) app.announce(seen.size ? `${seen.size} found.` : "Nothing found.");
  }

  /** Fill a box anew; the hit that has the focus keeps it. */
  function refill(box, content) {
    const focused = box.contains(document.activeElement) && document.activeElement.closest(".hit");
    replace(box, content);
    if (!focused) return;
    const again = [...box.querySelectorAll(".hit")].find(
      (row) => row.entry.id === focused.entry.id,
    );
    (again?.firstChild ?? input).focus();
  }

  function section(name, part, hits) {
    const waits = part.loading && !hits.length && "Searching…";
    const note = (part.slow && SLOW[name]) || waits || noteOf(name, part);
    if (!hits.length && !note && name === "titles") return null;
    const again = () => loads.search(input.value.trim(), { now: true });
    return h(
      "section",
      { class: part.loading ? "searching" : "", "aria-label": PARTS[name] },
      h("h2", { class: "day muted small" }, PARTS[name]),
      h(
        "ul",
        { role: "list" },
        hits.map((hit) => hitRow(app, hit)),
      ),
      !hits.length && !note && h("p", { class: "note" }, "Nothing found."),
      note && h("p", { class: part.error ? "note bad" : "note" }, note),
      part.passing && h("button", { class: "outline", onclick: again }, "Try again"),
    );
  }

  store.watch((state) => state.history.search, show);
  store.watch(
    (state) => state.route,
    (route) => showCurrent(results.querySelectorAll(".entry-row"), route),
  );
  const focus = () => {
    app.openHistory?.();
    input.focus();
    input.select();
  };
  bind("/", "Search the history", focus);
  bind("mod+k", "Search the history", focus);
  return { box, results };
}

/** What is to be said of a part: why there is nothing, or what was not searched. */
function noteOf(name, { error, code, unindexed, of_newest: newest, backlog }) {
  if (error && name === "meaning" && code === "unsupported")
    return `Search by meaning is not available here: ${error}`;
  if (error)
    return name === "words" && code === "invalid_request" ? error : `The search failed: ${error}`;
  const notes = [];
  if (unindexed) notes.push(`${unindexed.toLocaleString()} answers are not indexed yet.`);
  if (newest) notes.push(`Many match: the newest ${newest.toLocaleString()} were compared.`);
  if (backlog)
    notes.push(
      `${backlog.toLocaleString()} answers are not analysed yet: that is done when nothing runs.`,
    );
  return notes.join(" ");
}
