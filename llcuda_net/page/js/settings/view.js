/** The view `#/settings`. */

import { h } from "../core/dom.js";
import { viewHead } from "../shell/frame.js";
import { accountPanel } from "../session/account.js";
import { chatDefaults } from "../chat/defaults.js";

const THEMES = { auto: "As this device has it", light: "Light", dark: "Dark" };
const SENDING = { enter: "Enter (Shift+Enter for a new line)", "mod+enter": "Ctrl+Enter (Enter for a new line)" };

/** See README.md: a view. */
export function settingsView(app, route, signal) {
  return h(
    "div",
    { class: "view" },
    viewHead(app, "Settings"),
    h(
      "div",
      { class: "scroll" },
      h("div", { class: "column settings" }, look(app), answers(app), chatDefaults(app, signal), accountPanel(app, signal)),
    ),
  );
}

function look(app) {
  return h(
    "fieldset",
    {},
    h("legend", {}, "Appearance and keys"),
    select(app, "theme", "Colours", THEMES),
    select(app, "sendWith", "Send with", SENDING),
  );
}

function answers(app) {
  return h(
    "fieldset",
    {},
    h("legend", {}, "Answers"),
    check(app, "certainty", "Ask how sure the model is", "Words can then be shaded. It costs the model a little time a token."),
    check(app, "reasoningOpen", "Show reasoning unfolded", ""),
  );
}

function select(app, name, label, options) {
  const now = app.store.get().prefs[name];
  return h(
    "label",
    { class: "field" },
    h("span", {}, label),
    h(
      "select",
      { onchange: (event) => set(app, { [name]: event.target.value }) },
      Object.entries(options).map(([value, text]) => h("option", { value, selected: value === now }, text)),
    ),
  );
}

function check(app, name, label, detail) {
  return h(
    "div",
    {},
    h(
      "label",
      { class: "choice" },
      h("input", {
        type: "checkbox",
        checked: app.store.get().prefs[name],
        onchange: (event) => set(app, { [name]: event.target.checked }),
      }),
      label,
    ),
    detail && h("p", { class: "muted small" }, detail),
  );
}

const set = (app, prefs) => app.store.send({ type: "prefs/set", prefs });
