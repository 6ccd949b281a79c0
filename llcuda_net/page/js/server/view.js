/** The view of the server: figures, charts of two minutes, upstreams, models, users, store. */

import { h, replace } from "../core/dom.js";
import { viewHead } from "../shell/frame.js";
import { events, queue, users } from "./activity.js";
import { charts } from "./charts.js";
import { overview, process, store } from "./figures.js";
import { models } from "./models.js";
import { phases } from "./phases.js";
import { setText } from "./table.js";
import { upstreams } from "./upstreams.js";

/** See README.md: a view. */
export function serverView(app, route, signal) {
  const note = h("p", { class: "muted", role: "status" }, "Asking the server…");
  const parts = {
    overview: overview(),
    upstreams: upstreams(),
    models: models(app, signal),
    phases: phases(),
    events: events(app),
    users: users(),
    queue: queue(),
    store: store(),
    process: process(),
  };
  const history = charts();
  const section = (title, name) => h("section", {}, h("h2", {}, title), parts[name].element);
  const kept = section("Journal and store", "store");
  const body = h(
    "div",
    { class: "server", hidden: true },
    parts.overview.element,
    history.element,
    section("Upstreams", "upstreams"),
    section("Models", "models"),
    h(
      "div",
      { class: "pair" },
      section("Where the time went", "phases"),
      section("Lately", "events"),
    ),
    h("div", { class: "pair" }, section("Users", "users"), section("Queue", "queue")),
    h("div", { class: "pair" }, kept, section("Process", "process")),
  );

  app.store.watch((state) => state.server, show, signal);
  watchLive(app, signal);
  ask(app, signal);

  function show({ status, samples, error }) {
    const again = h("button", { class: "outline", onclick: () => ask(app, signal) }, "Try again");
    note.hidden = !error && status !== null;
    if (error) replace(note, error, " ", again);
    if (!status) return;
    body.hidden = false;
    kept.hidden = !status.store;
    history.show(samples);
    for (const part of Object.values(parts)) part.show(status);
  }

  const scroll = h("div", { class: "scroll" }, note, body);
  return h("div", { class: "view" }, viewHead(app, "Server", age(app, signal)), scroll);
}

/** The history is asked for once: the live stream has each second from then on. */
async function ask(app, signal) {
  try {
    const status = await app.api.get("/v1/status", { query: { history: true }, signal });
    app.store.send({ type: "status", status });
  } catch (error) {
    if (signal.aborted) return;
    app.store.send({ type: "server/failed", message: `No figures: ${error.message}.` });
  }
}

function watchLive(app, signal) {
  // The first view may be made before the live stream is.
  queueMicrotask(() => {
    if (signal.aborted) return;
    app.live?.status?.(true);
    signal.addEventListener("abort", () => app.live?.status?.(false), { once: true });
  });
}

/** How old the figures are. */
function age(app, signal) {
  const element = h("span", { class: "muted small" });
  let at = 0;
  function look() {
    const seconds = Math.round((performance.now() - at) / 1000);
    setText(element, !at ? "" : seconds < 5 ? "live" : `as of ${seconds} s ago`);
  }
  app.store.watch(
    (state) => state.server.status,
    (status) => {
      at = status ? performance.now() : 0;
      look();
    },
    signal,
  );
  const timer = setInterval(look, 1000);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
  return element;
}
