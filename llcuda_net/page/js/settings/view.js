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
      h("div", { class: "column settings" }, look(app, signal), answers(app, signal), chatDefaults(app, signal), accountPanel(app, signal)),
    ),
  );
}

function look(app, signal) {
  return h(
    "fieldset",
    {},
    h("legend", {}, "Appearance and keys"),
    select(app, "theme", "Colours", THEMES, signal),
    select(app, "sendWith", "Send with", SENDING, signal),
  );
}

function answers(app, signal) {
  return h(
    "fieldset",
    {},
    h("legend", {}, "Answers"),
    check(app, "certainty", "Ask how sure the model is", signal, "Words can then be shaded. It costs the model a little time a token."),
    check(app, "reasoningOpen", "Show reasoning unfolded", signal),
  );
}

// Another tab may change what is preferred, too: each control follows.

function select(app, name, label, options, signal) {
  const control = h(
    "select",
    { onchange: () => set(app, { [name]: control.value }) },
    Object.entries(options).map(([value, text]) => h("option", { value }, text)),
  );
  app.store.watch((state) => state.prefs[name], (value) => (control.value = value), signal);
  return h("label", { class: "field" }, h("span", {}, label), control);
}

function check(app, name, label, signal, detail) {
  const control = h("input", {
    type: "checkbox",
    onchange: () => set(app, { [name]: control.checked }),
  });
  app.store.watch((state) => state.prefs[name], (value) => (control.checked = value), signal);
  const choice = h("label", { class: "choice" }, control, label);
  return h("div", {}, choice, detail && h("p", { class: "muted small" }, detail));
}

const set = (app, prefs) => app.store.send({ type: "prefs/set", prefs });
