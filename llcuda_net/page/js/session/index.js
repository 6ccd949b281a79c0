/** Who uses the page: known, or asked for a token. */

import { h } from "../core/dom.js";

/** The slice `session`: `state` is starting, required or known; `user`, `admin` … as GET /v1/session says. */
export function sessionReducer(state = { state: "starting", user: "" }, action) {
  if (action.type === "session/required") return { ...state, state: "required" };
  if (action.type === "session/known") return { ...state, ...action.session, state: "known" };
  return state;
}

/** Ask the server who this is. */
export function startSession(app) {
  app.store.send({ type: "session/known", session: { user: "" } });
}

/** The view that asks for a token. */
export function signInView(app) {
  return h("div", { class: "center" }, "Sign in");
}
