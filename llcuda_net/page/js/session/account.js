/** Who one is, and signing out, in the settings. */

import { h } from "../core/dom.js";

/** A fieldset for the settings. */
export function accountPanel(app, signal) {
  return h("fieldset", {}, h("legend", {}, "Account"));
}
