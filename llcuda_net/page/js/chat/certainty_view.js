/**
 * The shaded view of an answer: each word coloured by how sure the model was of it, what else it
 * could have been on hover and focus, and a legend.
 */

import { h, replace } from "../core/dom.js";
import { LEVELS, percent, spoken, visible, wordsOf } from "./certainty.js";

/** Words that are made in one go; the rest follows in pauses. */
const PART = 400;

/**
 * @param {object[]} logprobs of the answer's tokens, as a response has them
 * @param {AbortSignal} signal
 * @returns {Element}
 */
export function certaintyView(logprobs, signal) {
  const words = wordsOf(logprobs);
  const card = h("div", { class: "alternatives", role: "status", "aria-live": "off" });
  const text = h("div", {
    class: "shaded",
    role: "group",
    "aria-label": "The answer, word by word. Arrow keys go from word to word.",
  });
  const element = h("div", { class: "certainty" }, legend(), text, card);
  const options = { signal };
  text.addEventListener(
    "pointerover",
    (event) => select(event.target.closest("[data-at]")),
    options,
  );
  text.addEventListener("focusin", (event) => select(event.target.closest("[data-at]")), options);
  text.addEventListener("keydown", move, options);
  add(0);
  if (words.length === 0) replace(text, h("p", { class: "muted" }, "There is no text to shade."));

  function add(from) {
    if (signal.aborted) return;
    const until = Math.min(words.length, from + PART);
    text.append(...words.slice(from, until).map((word, at) => span(word, from + at)));
    if (until < words.length) requestAnimationFrame(() => add(until));
  }

  function span(word, at) {
    return h(
      "span",
      {
        class: `level-${word.level}`,
        "data-at": at,
        tabindex: at === 0 ? "0" : "-1",
        "aria-label": `${word.text.trim()}: ${spoken(word)}`,
        role: "note",
      },
      word.text,
    );
  }

  function select(span) {
    if (!span) return;
    const word = words[Number(span.dataset.at)];
    for (const other of text.querySelectorAll(".chosen, [tabindex='0']")) {
      other.classList.remove("chosen");
      other.tabIndex = -1;
    }
    span.classList.add("chosen");
    span.tabIndex = 0;
    replace(card, details(word));
  }

  function move(event) {
    const at = Number(document.activeElement?.dataset?.at);
    if (!Number.isInteger(at)) return;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: words.length - 1 }[event.key];
    const unsure = { ArrowDown: next(at, 1), ArrowUp: next(at, -1) }[event.key];
    const target = text.children[to ?? unsure ?? -1];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }

  // The next word of which the model was not sure: what one looks for.
  function next(at, step) {
    for (let to = at + step; to >= 0 && to < words.length; to += step) {
      if (words[to].level > 1) return to;
    }
    return undefined;
  }

  return element;
}

function legend() {
  const marks = LEVELS.map(({ least, words }, level) =>
    h(
      "li",
      {},
      h("span", { class: `level-${level}` }, words),
      ` ${least ? `from ${percent(least)}` : "below"}`,
    ),
  );
  return h(
    "div",
    { class: "legend small" },
    h("ul", { "aria-label": "Shades" }, marks),
    h("span", { class: "muted" }, "↑ ↓ unsure words"),
  );
}

function details(word) {
  return h(
    "div",
    {},
    h("strong", {}, `${percent(word.probability)} ${LEVELS[word.level].words}`),
    word.tokens.map((token) =>
      h(
        "div",
        { class: "token" },
        h("code", {}, visible(token.text)),
        ` ${percent(token.probability)}`,
        token.others
          .filter(({ text }) => text !== token.text)
          .map(({ text, probability }) =>
            h("span", { class: "other" }, h("code", {}, visible(text)), ` ${percent(probability)}`),
          ),
      ),
    ),
  );
}
