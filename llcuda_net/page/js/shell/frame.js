/** The frame around all views: the left column, the main part, banner, and what is announced. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { bind } from "../core/keys.js";
import { go, href } from "../core/router.js";
import { helpDialog } from "./help.js";

/**
 * @param {Object} app see README.md
 * @param {{side: function, views: Object<string, function>}} parts
 */
export function frame(app, { side, views }) {
  const main = h("main", { class: "view", id: "main", tabindex: "-1" });
  const root = h(
    "div",
    { class: "frame" },
    h("a", { class: "skip", href: "#main", onclick: skip }, "Skip to the content"),
    column(),
    h("div", { class: "shade", onclick: () => draw(false) }),
    h("div", { class: "main" }, banner(app), main),
  );

  function column() {
    const body = h("div", { class: "side-body" }, side(app));
    return h(
      "nav",
      { class: "side", "aria-label": "History" },
      h(
        "div",
        { class: "side-head" },
        h("a", { class: "brand", href: href("") }, h("img", { src: "/page/icon.svg", alt: "" }), "llcuda"),
        h("button", { class: "square", title: "New chat", "aria-label": "New chat", onclick: newChat }, icon("plus")),
        h("button", { class: "square close-side", "aria-label": "Close the history", onclick: () => draw(false) }, icon("close")),
      ),
      body,
      foot(app),
    );
  }

  function draw(open) {
    root.classList.toggle("drawn", open);
    if (open) root.querySelector(".side a, .side button")?.focus();
  }

  function skip(event) {
    event.preventDefault();
    main.focus();
  }

  function newChat() {
    go(href(""));
  }

  app.openHistory = () => draw(true);
  bind("alt+n", "New chat", newChat);
  bind("?", "Keyboard shortcuts", () => helpDialog());
  bind("Escape", "Close what is open", () => {
    if (!root.classList.contains("drawn")) return false;
    draw(false);
  });

  let shown = null;
  app.store.watch(
    (state) => state.route,
    (route, before) => {
      draw(false);
      const view = Object.hasOwn(views, route.view) ? views[route.view] : nothing;
      // Only another view or another object makes a new one; a query is for the view that is there.
      if (shown && before && route.view === before.view && route.id === before.id) return;
      shown?.abort();
      shown = new AbortController();
      replace(main, view(app, route, shown.signal));
    },
  );
  return root;
}

/** The view of an address that is none. */
function nothing(app) {
  const text = h("p", {}, "There is nothing at this address. ", h("a", { href: href("") }, "New chat"));
  return h("div", { class: "view" }, viewHead(app, "Not found"), h("div", { class: "center" }, text));
}

/** The head of a view: opens the history on phones. A title that is a text is the document's, too. */
export function viewHead(app, title, ...rest) {
  if (typeof title === "string") document.title = `${title} – llcuda`;
  const open = h(
    "button",
    { class: "square open-side", "aria-label": "Open the history", onclick: () => app.openHistory() },
    icon("menu"),
  );
  return h("header", { class: "view-head" }, open, h("h1", { class: "ellipsis" }, title), ...rest);
}

function foot(app) {
  const link = (view, name, text) =>
    h("a", { href: href(view), "data-view": view }, icon(name), text);
  const links = [link("server", "server", "Server"), link("settings", "settings", "Settings")];
  const who = h("span", { class: "muted small ellipsis" });
  app.store.watch(
    (state) => state.route.view,
    (view) => {
      for (const one of links) {
        if (one.dataset.view === view) one.setAttribute("aria-current", "page");
        else one.removeAttribute("aria-current");
      }
    },
  );
  app.store.watch(
    (state) => state.session.user,
    (user) => replace(who, user ? icon("user") : null, user ? ` ${user}` : null),
  );
  return h("div", { class: "side-foot" }, links, who);
}

function banner(app) {
  const element = h("div", { class: "banner", role: "status", hidden: true });
  app.store.watch(
    (state) => state.live.connection,
    (connection) => {
      element.hidden = connection !== "lost";
      replace(
        element,
        connection === "lost"
          ? "The server is not reached. Answers go on there, and here as soon as it is back."
          : null,
      );
    },
  );
  return element;
}
