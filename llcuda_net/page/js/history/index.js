/** The left column: what runs, conversations, answers, and the search. */

import { h } from "../core/dom.js";
import { href } from "../core/router.js";
import { filters } from "./filters.js";
import { listView } from "./list_view.js";
import { createLoads } from "./loads.js";
import { running } from "./running.js";
import { search } from "./search.js";
import { historyReducer } from "./state.js";

export const historyReducers = { history: historyReducer };

const TABS = { conversations: "Conversations", answers: "All answers" };

/** The panel in the left column. */
export function historyPanel(app) {
  const { store } = app;
  const loads = createLoads(app);
  const views = {
    conversations: listView(app, loads, "conversations", {
      label: TABS.conversations,
      empty: () =>
        h("p", {}, "No conversation yet. ", h("a", { href: href("") }, "Begin one"), "."),
    }),
    answers: listView(app, loads, "answers", {
      label: TABS.answers,
      empty: () => h("p", {}, "No answer here. Those of the command line and of SDKs appear, too."),
    }),
  };
  const { box, results } = search(app, loads, () => views[store.get().history.tab].focus());
  const tabs = Object.entries(TABS).map(([name, text]) =>
    h(
      "button",
      { "data-tab": name, onclick: () => store.send({ type: "history/tab", tab: name }) },
      text,
    ),
  );
  const head = h("div", { class: "tabs", role: "group", "aria-label": "What is listed" }, tabs);
  const filter = filters(app);
  store.watch(
    ({
      history: {
        tab,
        search: { text },
      },
    }) => `${text ? "" : tab}`,
    (shown) => {
      head.hidden = !shown;
      filter.hidden = shown !== "answers";
      for (const [name, view] of Object.entries(views)) {
        view.element.hidden = shown !== name;
        view.draw();
      }
      for (const tab of tabs) tab.setAttribute("aria-pressed", tab.dataset.tab === shown);
    },
  );
  return h(
    "div",
    { class: "history" },
    box,
    running(app),
    head,
    filter,
    views.conversations.element,
    views.answers.element,
    results,
  );
}
