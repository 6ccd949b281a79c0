/** The filters of all answers: state, model, since when. */

import { h, replace } from "../core/dom.js";

const STATES = [
  ["", "State"],
  ["queued,running", "Running"],
  ["done", "Done"],
  ["failed,interrupted", "Failed"],
  ["cancelled", "Stopped"],
];
const SINCE = [
  ["", "Time"],
  ["1d", "Last day"],
  ["7d", "Last week"],
  ["30d", "Last month"],
];

/** A row of selects. */
export function filters(app) {
  const { store } = app;
  const model = select("model", "Filter by model");
  const seen = new Set();

  function select(name, label, options = []) {
    const onchange = (event) =>
      store.send({ type: "history/filter", filter: { [name]: event.target.value } });
    return h(
      "select",
      { "aria-label": label, class: "small", onchange },
      options.map(([value, text]) => h("option", { value }, text)),
    );
  }

  function offer(names) {
    const before = seen.size;
    for (const name of names) if (name) seen.add(name);
    if (before && seen.size === before) return;
    const { value } = model;
    replace(
      model,
      h("option", { value: "" }, "Model"),
      [...seen].sort().map((name) => h("option", { value: name }, name)),
    );
    model.value = value;
  }

  offer([]);
  // Models that answered, and those that can.
  store.watch(
    (state) => state.history.answers.pages,
    (pages) => offer(pages.at(-1)?.entries?.map((entry) => entry.model) ?? []),
  );
  app.api.get("/v1/models").then(
    ({ data }) => offer(data.map((one) => one.id)),
    () => {},
  );
  return h(
    "div",
    { class: "filters", role: "group", "aria-label": "Filters" },
    select("state", "Filter by state", STATES),
    model,
    select("since", "Filter by time", SINCE),
  );
}
