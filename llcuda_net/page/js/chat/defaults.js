/** What new chats begin with, in the settings. */

import { h } from "../core/dom.js";

/** A fieldset for the settings. */
export function chatDefaults(app, signal) {
  return h("fieldset", {}, h("legend", {}, "New chats"));
}
