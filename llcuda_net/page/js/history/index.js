/** The left column: what runs, conversations, answers, and the search. */

import { h } from "../core/dom.js";

export const historyReducers = {};

/** The panel in the left column. */
export function historyPanel(app) {
  return h("div", {});
}
