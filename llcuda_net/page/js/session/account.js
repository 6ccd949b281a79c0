/** Who one is, and signing out, in the settings. */

import { h, replace } from "../core/dom.js";
import { confirmed } from "../shell/confirm.js";
import { signOut } from "./actions.js";

const EVERYWHERE =
  "All browsers in which you are signed in need your token again. Answers that run go on.";
const NOBODY = "This server has no token file: whoever may reach it uses it, and sees everything.";

/**
 * A fieldset for the settings.
 * @param {Object} app see README.md
 * @param {AbortSignal} signal
 */
export function accountPanel(app, signal) {
  const panel = h("fieldset", {});
  app.store.watch(
    (state) => state.session,
    (session) =>
      replace(
        panel,
        h("legend", {}, "Account"),
        session.needsToken ? own(app, session) : h("p", { class: "muted" }, NOBODY),
        session.version && h("p", { class: "muted small" }, `llcuda ${session.version}`),
      ),
    signal,
  );
  return panel;
}

function own(app, { user, admin }) {
  async function leave(everywhere) {
    const words = { yes: "Sign out", detail: EVERYWHERE };
    if (everywhere && !(await confirmed("Sign out everywhere?", words))) return;
    try {
      await signOut(app, { everywhere });
    } catch (error) {
      app.notify(`Not signed out: ${error.message}`, { bad: true });
    }
  }

  const name = h("strong", {}, user || "the user without a name");
  return [
    h("p", {}, "Signed in as ", name, admin && ", an admin"),
    h(
      "div",
      { class: "row" },
      h("button", { class: "outline", onclick: () => leave(false) }, "Sign out"),
      h("button", { class: "outline", onclick: () => leave(true) }, "Sign out everywhere …"),
    ),
  ];
}
