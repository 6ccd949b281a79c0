/** Versions of one answer side by side; on phones one above the other. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { createAnswer } from "./answer.js";
import { conversationNode } from "./state.js";

/**
 * @param {object} app
 * @param {object[]} nodes the versions, the oldest first
 * @param {string} current the id of the one that is shown
 * @param {{choose: function(string): void, ended: function(object): void}} acts choose: go on from
 *   this one; ended: one that ran is over
 */
export function compare(app, nodes, current, { choose, ended }) {
  const life = new AbortController();
  const at = Math.max(
    0,
    nodes.findIndex((node) => node.id === current),
  );
  const other = at > 0 ? at - 1 : 1;
  const columns = h(
    "div",
    { class: "columns" },
    [Math.min(at, other), Math.max(at, other)].map((number, left) =>
      column(number, left ? "right" : "left"),
    ),
  );
  const dialog = h(
    "dialog",
    {
      class: "compare",
      "aria-label": "Versions of the answer",
      onclose: () => (life.abort(), dialog.remove()),
    },
    h(
      "div",
      { class: "row spread" },
      h("h2", {}, "Versions of the answer"),
      h(
        "button",
        { class: "square", "aria-label": "Close", onclick: () => dialog.close() },
        icon("close"),
      ),
    ),
    columns,
  );

  function column(first, side) {
    let end = null;
    const body = h("div", {
      class: "version",
      tabindex: "0",
      role: "region",
      "aria-label": `The version on the ${side}`,
    });
    const pick = h(
      "select",
      { "aria-label": `Which version is on the ${side}`, onchange: () => show(Number(pick.value)) },
      nodes.map((node, number) =>
        h("option", { value: number, selected: number === first }, `${number + 1}: ${node.model}`),
      ),
    );
    const take = h(
      "button",
      { class: "outline", onclick: () => (dialog.close(), choose(nodes[Number(pick.value)].id)) },
      "Go on from this one",
    );
    signalled(() => end?.abort());
    show(first);

    function show(number) {
      end?.abort();
      end = new AbortController();
      const answer = createAnswer(app, { ended }, end.signal);
      const { id } = nodes[number];
      app.store.watch(
        (state) => conversationNode(state, id) ?? nodes[number],
        (node) => answer.show(node, null),
        end.signal,
      );
      replace(body, answer.element);
    }
    return h("div", { class: "column-of" }, h("div", { class: "row" }, pick, take), body);
  }

  function signalled(call) {
    life.signal.addEventListener("abort", call);
  }

  document.body.append(dialog);
  dialog.showModal();
}
