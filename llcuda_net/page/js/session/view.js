/** What is shown while nobody is known: the form for a token, or what the page waits for. */

import { h, replace } from "../core/dom.js";
import { signIn } from "./actions.js";

/** Milliseconds without an answer before the page says that it waits. */
const PATIENCE = 600;

/** The view that asks for a token. */
export function signInView(app) {
  const token = h("input", {
    type: "password",
    name: "token",
    id: "token",
    autocomplete: "current-password",
    autocapitalize: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "token-help",
  });
  const button = h("button", { class: "primary" }, "Sign in");
  const wrong = h("p", { class: "notice bad", role: "alert", hidden: true });
  const { met } = app.store.get().session;

  async function submit(event) {
    event.preventDefault();
    wrong.hidden = true;
    token.removeAttribute("aria-invalid");
    button.disabled = true;
    try {
      await signIn(app, token.value.trim());
    } catch (error) {
      replace(wrong, sentence(error.message));
      wrong.hidden = false;
      token.setAttribute("aria-invalid", "true");
      token.select();
    } finally {
      button.disabled = false;
    }
  }

  queueMicrotask(() => token.focus()); // when it is in the document
  return h(
    "main",
    { class: "center" },
    h(
      "form",
      { class: "stack sign-in", onsubmit: submit },
      h("h1", { class: "brand" }, h("img", { src: "/page/icon.svg", alt: "" }), "llcuda"),
      met && h("p", { class: "notice" }, "You were signed out. Sign in to go on where you were."),
      // Password managers want a name beside a password.
      h("input", { name: "username", autocomplete: "username", value: "llcuda", hidden: true }),
      h("div", { class: "field" }, h("label", { for: "token" }, "Token"), token),
      wrong,
      button,
      h(
        "p",
        { class: "muted small", id: "token-help" },
        "Whoever runs this server has one for you. This browser stays signed in for 30 days.",
      ),
    ),
  );
}

/** What is shown until the server has answered: what index.html shows, and soon why. */
export function startingView(app) {
  const text = h("p", { class: "muted", role: "status" });
  const show = (problem) => replace(text, problem ? `Waiting for the server: ${problem}` : null);
  app.store.watch((state) => state.session.problem, show);
  setTimeout(() => text.hasChildNodes() || replace(text, "Waiting for the server …"), PATIENCE);
  const icon = h("img", { src: "/page/icon.svg", alt: "", width: 48, height: 48 });
  return h("main", { class: "center" }, h("div", { class: "stack waiting" }, icon, text));
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
