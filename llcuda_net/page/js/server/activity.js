/** Who has what under way, what waits, and what happened lately. */

import { h, reconcile } from "../core/dom.js";
import { href } from "../core/router.js";
import { clock, count, span } from "./format.js";
import { setText, table } from "./table.js";

/** Waiting requests, and events, that are shown. */
const WAITING = 20;
const EVENTS = 12;

const userName = (name) => name || "everybody";

/** Requests by user, the busiest first. */
export function users() {
  const list = table(
    "Requests by user",
    [
      ["User", (one) => userName(one.name)],
      ["Running", (one) => count(one.running), "figure"],
      ["Waiting", (one) => count(one.queued), "figure"],
      ["Tokens served", (one) => count(one.served), "figure"],
      ["Weight", (one) => String(one.weight), "figure wide"],
    ],
    (one) => one.name,
  );
  const order = (one, other) => other.queued - one.queued || other.running - one.running;
  return { element: list.element, show: (status) => list.show([...status.users].sort(order)) };
}

/** The first requests of the queue. */
export function queue() {
  const list = table(
    "Waiting requests",
    [
      ["Place", (one) => count(one.position ?? one.at + 1)],
      ["User", (one) => userName(one.user)],
      ["Has waited", (one) => span(one.waited), "figure"],
      [
        "Still to wait",
        (one) => (one.wait === null ? "not known" : `about ${span(one.wait)}`),
        "figure",
      ],
      ["Priority", (one) => one.priority, "wide"],
      ["Model", (one) => one.model, "wide"],
      ["Why", (one) => one.reason],
    ],
    (one) => one.at,
  );
  const more = h("p", { class: "muted small" });
  return {
    element: h("div", {}, list.element, more),
    show(status) {
      const shown = status.queue.slice(0, WAITING);
      const left = status.requests.queued - shown.length;
      list.element.hidden = shown.length === 0;
      list.show(shown.map((one, at) => ({ ...one, at })));
      if (left > 0)
        setText(more, `${count(left)} ${shown.length ? "more" : "of other users"} wait.`);
      else setText(more, shown.length ? "" : "Nobody waits.");
    },
  };
}

/** Failovers, and changes at the upstreams, the latest first. */
export function events(app) {
  const list = h("ol", { class: "plain events" });
  const none = h("p", { class: "muted small" }, "Nothing has changed.");
  let heard = null; // when the last fault was that a screen reader has read

  function show({ failovers, changes }) {
    const known = (one) => !failovers.length || !/ failovers?$/.test(one.text);
    const found = [...failovers.map((one) => ({ ...one, bad: true })), ...changes.filter(known)]
      .sort((one, other) => other.at - one.at)
      .slice(0, EVENTS);
    none.hidden = found.length > 0;
    reconcile(list, found, (one) => `${one.at} ${textOf(one)}`, line);
    const last = found.find((one) => one.bad);
    if (last && heard !== null && last.at > heard) app.announce(textOf(last));
    heard = Math.max(heard ?? 0, last?.at ?? 0);
  }

  return { element: h("div", {}, none, list), show };
}

function line(event) {
  const { at, bad, generation } = event;
  const said = generation
    ? h("a", { href: href("a", generation) }, textOf(event))
    : h("span", { class: bad ? "bad-text" : null }, textOf(event));
  return h("li", {}, h("time", { class: "muted small" }, clock(at)), " ", said);
}

const textOf = ({ generation, reason, upstream, text }) =>
  generation ? `An answer went on elsewhere: ${reason}` : `${upstream} ${text}`;
