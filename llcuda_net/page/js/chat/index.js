/** The chat: views of a new chat, a conversation, and an answer of any API. */

import { h } from "../core/dom.js";
import { viewHead } from "../shell/frame.js";

export const chatReducers = {};

const soon = (app) => h("div", { class: "view" }, viewHead(app, "Chat"));

export const chatViews = { "": soon, c: soon, a: soon };
