/** Which model answers: a button that says which, and a list to choose from. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { opened } from "../shell/overlays.js";
import { loadModels, matching, modelOf, standing } from "./models.js";

const REFRESH_MS = 1500;
/** Between two looks at a model that is being loaded, or that is not there. */
const LOOKS_MS = { loading: REFRESH_MS, bad: 10_000 };
/** With fewer models there is nothing to search. */
const SEARCHABLE = 8;

/**
 * A button with the model that will answer.
 * @param {object} app
 * @param {{current: function(object): string, choose: function(string): void}} options current:
 *   the name out of the state; "" is the default one
 * @param {AbortSignal} signal
 * @returns {Element}
 */
export function modelButton(app, { current, choose }, signal) {
  const words = h("span", { class: "ellipsis" });
  const dot = h("span", { class: "dot" });
  const button = h(
    "button",
    { type: "button", class: "model-button", "aria-haspopup": "dialog", onclick: open },
    dot,
    words,
    icon("down"),
  );
  let timer = 0;
  app.store.watch((state) => state.chat.models, show, signal);
  app.store.watch(current, show, signal);
  signal.addEventListener("abort", () => clearTimeout(timer));

  function open() {
    openModels(app, button, current(app.store.get()), choose);
  }

  function show() {
    const name = current(app.store.get());
    const { models } = app.store.get().chat;
    const model = modelOf(models, name);
    const stand = model
      ? standing(model)
      : { kind: models ? "bad" : "idle", words: models ? "not there" : "" };
    const label = model?.id ?? (name || (models ? "no model" : "…"));
    replace(
      words,
      label,
      stand.kind === "ready" || !stand.words
        ? null
        : h("span", { class: "muted" }, ` ${stand.words}`),
    );
    button.setAttribute("aria-label", `Model: ${label}, ${stand.words}`);
    dot.className = `dot ${stand.kind}`;
    clearTimeout(timer);
    const wait = LOOKS_MS[stand.kind];
    if (wait) timer = setTimeout(() => loadModels(app, signal), wait);
  }

  return button;
}

/**
 * The list of models at a button, or, where it has one, its end.
 * @param {object} app
 * @param {Element} anchor
 * @param {string} current
 * @param {function(string): void} choose
 */
export function openModels(app, anchor, current, choose) {
  if (opened.has(anchor)) return opened.get(anchor)();
  const end = new AbortController();
  const { signal } = end;
  let active = 0;
  let found = [];
  const search = h("input", {
    type: "search",
    placeholder: "Search models",
    role: "combobox",
    "aria-label": "Search models",
    "aria-expanded": "true",
    "aria-controls": "model-list",
    "aria-autocomplete": "list",
  });
  const list = h("ul", {
    role: "listbox",
    id: "model-list",
    "aria-label": "Models",
    tabindex: "-1",
  });
  const element = h(
    "div",
    { class: "menu models", role: "dialog", "aria-label": "Choose a model" },
    search,
    list,
  );
  element.style.position = "fixed"; // before it is there: it must not make the page longer
  document.body.append(element);
  anchor.setAttribute("aria-expanded", "true");
  search.addEventListener("input", () => ((active = 0), show()), { signal });
  element.addEventListener("keydown", onKey, { signal });
  const within = ({ target }) => element.contains(target) || anchor.contains(target);
  addEventListener("pointerdown", (event) => within(event) || close(false), {
    signal,
    capture: true,
  });
  opened.set(anchor, close);
  addEventListener("hashchange", () => close(false), { signal });
  app.store.watch((state) => state.chat.models, show, signal);
  const first = found.findIndex(({ id }) => id === modelOf(found, current)?.id);
  active = Math.max(0, first);
  show();
  search.classList.toggle("unseen", found.length < SEARCHABLE);
  search.focus();
  const refresh = () => loadModels(app, signal);
  refresh();
  const timer = setInterval(refresh, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  function close(back = true) {
    end.abort();
    opened.delete(anchor);
    element.remove();
    anchor.setAttribute("aria-expanded", "false");
    if (back) anchor.focus();
  }

  function take(model) {
    close();
    choose(model.id);
  }

  function show() {
    const { models } = app.store.get().chat;
    found = matching(models ?? [], search.value);
    const chosen = modelOf(models, current)?.id;
    replace(
      list,
      found.map((model, at) => option(model, at, chosen)),
    );
    if (found.length === 0) {
      replace(
        list,
        h(
          "li",
          { class: "muted", role: "option", "aria-disabled": "true", "aria-selected": "false" },
          models ? "There is no such model." : "Asking the server…",
        ),
      );
    }
    search.setAttribute("aria-activedescendant", found.length ? `model-${active}` : "");
    place(element, anchor);
    const { offsetTop: top = 0, offsetHeight: height = 0 } = list.children[active] ?? {};
    list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + height - list.clientHeight));
  }

  function option(model, at, chosen) {
    const stand = standing(model);
    const images = model.modalities?.includes("image") ? " · sees images" : "";
    return h(
      "li",
      {
        role: "option",
        id: `model-${at}`,
        "aria-selected": String(model.id === chosen),
        class: at === active ? "active" : "",
        onclick: () => take(model),
      },
      h("span", { class: `dot ${stand.kind}` }),
      h(
        "span",
        {},
        h("span", {}, model.id),
        h("span", { class: "small muted block" }, stand.words + images),
      ),
      model.id === chosen && icon("check"),
    );
  }

  function onKey(event) {
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, Home: 0, End: found.length - 1 }[
      event.key
    ];
    if (to !== undefined && found.length) {
      active = (to + found.length) % found.length;
      show();
    } else if (event.key === "Enter" && found[active]) {
      take(found[active]);
    } else if (event.key === "Escape" || event.key === "Tab") {
      close();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

function place(element, anchor) {
  const at = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = at.bottom + height + 8 < innerHeight;
  element.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  element.style.top = `${Math.max(8, below ? at.bottom + 4 : at.top - height - 4)}px`;
}
