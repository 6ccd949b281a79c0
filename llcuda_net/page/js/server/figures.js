/** Figures with their names: how the server stands, and what it has stored. */

import { h, reconcile } from "../core/dom.js";
import { bytes, count, figure, plural, span } from "./format.js";
import { facts, setText } from "./table.js";

const warned = (value, kind) => (value ? kind : "");

/** What matters first. */
export function overview() {
  const { element, show } = facts("tiles");
  return {
    element,
    show({ requests, upstreams, tokens, tokens_per_second, server }) {
      const slots = upstreams.reduce((sum, one) => sum + (one.slots ?? 0), 0);
      show([
        ["Tokens per second", figure(tokens_per_second)],
        ["Running", `${count(requests.running)}${slots ? ` of ${count(slots)}` : ""}`],
        ["Waiting", count(requests.queued), warned(requests.queued, "warn-text")],
        ["Done", count(requests.done)],
        ["Failed", count(requests.failed), warned(requests.failed, "bad-text")],
        ["Cancelled", count(requests.cancelled)],
        ["Interrupted", count(requests.interrupted), warned(requests.interrupted, "bad-text")],
        ["Failovers", count(requests.failovers), warned(requests.failovers, "warn-text")],
        ["Tokens in all", count(tokens)],
        ["Up for", span(server.uptime)],
      ]);
    },
  };
}

/** Journal and store: how large, how far behind, what is damaged. */
export function store() {
  const list = facts("facts");
  const refuses = h("p", { class: "notice bad" });
  const damage = h("ul", { class: "notice bad" });
  return {
    element: h("div", { class: "stack" }, refuses, damage, list.element),
    show({ store: held = {}, analysis }) {
      const { sizes = {}, damage: lines = [] } = held;
      refuses.hidden = !held.refuses;
      setText(refuses, held.refuses ? `Nothing new is taken: ${held.refuses}` : "");
      damage.hidden = lines.length === 0;
      reconcile(
        damage,
        lines,
        (one) => one,
        (one) => h("li", {}, one),
      );
      list.show([
        ["Journal", known(sizes.journal, bytes)],
        ["Journal of answers that go on", known(held.journal_live_bytes, bytes)],
        ["Results", known(sizes.results, bytes)],
        ["Indexes and analyses", known(sizes.derived, bytes)],
        ["Files, batches, conversations", known(sizes.objects, bytes)],
        ["Free on this disk", known(held.free, bytes), warned(held.free < 2 ** 30, "bad-text")],
        ["Stored since the start", known(held.results, (one) => plural(one, "result"))],
        [
          "Waiting to be stored",
          known(held.backlog, count),
          warned(held.backlog > 500, "warn-text"),
        ],
        ["Could not be stored yet", known(held.unstored, count), warned(held.unstored, "bad-text")],
        ["Not found by words yet", known(held.search_behind, count)],
        ["Not analysed yet", known(analysis?.backlog, count)],
        ["Durability", held.level],
      ]);
    },
  };
}

/** Connections and memory. */
export function process() {
  const { element, show } = facts("facts");
  return {
    element,
    show: ({ server, memory, connections, http }) =>
      show([
        ["Version", server.version],
        ["Stopping", server.draining ? "yes: nothing new is taken" : null, "warn-text"],
        ["Memory", `${bytes(memory.resident)} of at most ${bytes(memory.limit)}`],
        ["Memory of requests and answers", bytes(memory.running)],
        ["Refused for lack of memory", count(memory.refused), warned(memory.refused, "bad-text")],
        ["Connections over HTTP", count(http.requests + http.idle)],
        ["Connections of llcuda's clients", count(connections)],
      ]),
  };
}

const known = (value, format) => (value === undefined ? null : format(value));
