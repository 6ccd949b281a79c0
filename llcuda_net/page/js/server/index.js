/** The view `#/server`. */

import { h } from "../core/dom.js";
import { viewHead } from "../shell/frame.js";

export const serverReducers = {};

export const serverViews = { server: (app) => h("div", { class: "view" }, viewHead(app, "Server")) };
