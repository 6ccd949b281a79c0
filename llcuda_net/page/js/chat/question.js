/** One question: its words and images, its versions, and the place where it is edited. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { copyButton } from "./decorate.js";
import { thumbnails } from "./images.js";
import { pretty } from "./blocks.js";
import { switcher } from "./switcher.js";
import { questionOf } from "./turn.js";

/** Above so many characters a question is folded. */
const LONG = 3000;

/**
 * @param {object} app
 * @param {{edit?: function(object, string): (void|false), choose?: function(string): void}} acts
 * @returns {{element: Element, show: function(object, ?object): void}} show(node, versions)
 */
export function createQuestion(app, acts) {
  const element = h("div", { class: "question", role: "group", "aria-label": "Question" });
  let shown = "";
  let editing = false;
  let last = null;

  function show(node, versions) {
    last = [node, versions];
    if (editing) return;
    const key = JSON.stringify([
      node.id,
      node.status === "sending",
      versions?.questions.length,
      versions?.question,
    ]);
    if (key === shown) return;
    shown = key;
    const asked = questionOf(node.asked ?? node.input);
    replace(
      element,
      asked.system.map((text) => folded("Instructions", text)),
      asked.results.map(({ output }) => folded("Result of a tool", pretty(output))),
      asked.images.length > 0 &&
        h(
          "div",
          { class: "thumbs" },
          thumbnails(
            asked.images.map((url) => ({ url })),
            null,
          ),
        ),
      asked.text && words(asked.text),
      h("div", { class: "buttons" }, buttons(node, versions, asked)),
    );
  }

  function buttons(node, versions, asked) {
    const questions = versions?.questions ?? [];
    return [
      questions.length > 1 &&
        switcher("question", versions.question, questions.length, (at) =>
          acts.choose(questions[at].at(-1)),
        ),
      asked.text && copyButton(app, "Copy the question", () => asked.text),
      acts.edit &&
        asked.text &&
        node.type !== "item" &&
        node.status !== "sending" &&
        h(
          "button",
          {
            class: "square small",
            "aria-label": "Edit the question",
            title: "Edit the question",
            onclick: () => edit(node, asked.text),
          },
          icon("edit"),
        ),
    ];
  }

  function edit(node, text) {
    editing = true;
    const field = h("textarea", { "aria-label": "The question, edited", rows: "3", dir: "auto" });
    field.value = text;
    const close = () => {
      editing = false;
      shown = "";
      show(...last);
      element.querySelector('[aria-label="Edit the question"]')?.focus();
    };
    const send = () => {
      const changed = field.value.trim();
      if (changed === "") return field.focus();
      if (acts.edit(node, changed) !== false) close();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), close());
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey))
        (event.preventDefault(), send());
    });
    replace(
      element,
      h(
        "div",
        { class: "edit" },
        field,
        h("p", { class: "small muted" }, "It is asked as another version; this one stays."),
        h(
          "div",
          { class: "row" },
          h("button", { class: "primary", onclick: send }, "Ask"),
          h("button", { class: "outline", onclick: close }, "Cancel"),
        ),
      ),
    );
    field.style.height = `${Math.min(field.scrollHeight + 2, 400)}px`;
    field.focus();
  }

  return { element, show };
}

function words(text) {
  const body = h("div", { class: "words", dir: "auto" }, text);
  if (text.length <= LONG) return body;
  body.classList.add("long");
  const more = h("button", { class: "outline small", "aria-expanded": "false" }, "Show all");
  more.addEventListener("click", () => {
    const long = body.classList.toggle("long");
    more.setAttribute("aria-expanded", String(!long));
    replace(more, long ? "Show all" : "Show less");
  });
  return [body, more];
}

function folded(title, text) {
  return h(
    "details",
    { class: "folded small" },
    h("summary", {}, title),
    h("pre", { tabindex: "0" }, text),
  );
}
