/**
 * The blocks of an answer in the document: a final one is made once, the open one is replaced, or
 * text is added to it. Nothing else is touched.
 */

import { h, replace, setHtml } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { copyButton, decorate } from "./decorate.js";

/** Where text that is added to an open block goes: into the last of these, at any depth. */
const DEEPER = /^(PRE|P|UL|OL|LI|BLOCKQUOTE|H[1-6])$/u;

/**
 * @param {object} app
 * @returns {{element: Element, show: function(object[], ?object): void, settle: function(): void}}
 *   show(blocks, open): what there is now; settle(): it is over, thinking is folded
 */
export function createBlocks(app) {
  const element = h("div", { class: "blocks" });
  let shown = [];
  let group = null; // of the same channel, the last one
  let open = null; // {n, channel, element, html, text, target, added}

  function clear() {
    shown = [];
    group = open = null;
    element.replaceChildren();
  }

  function show(blocks, growing = null) {
    const last = shown.length - 1;
    if (last >= 0 && !(blocks.length > last && sameBlocks(shown, blocks))) clear();
    for (const block of blocks.slice(shown.length)) {
      if (open?.n === block.n) fill(open.element, block, true);
      else make(block, true);
      open = null;
      shown.push(block);
    }
    if (growing) grow(growing);
    else drop();
  }

  function drop() {
    open?.element.remove();
    open = null;
  }

  function grow(block) {
    if (open?.n !== block.n || open.channel !== block.channel) {
      drop();
      open = { n: block.n, channel: block.channel, element: make(block, false) };
    }
    if (open.html !== block.html || open.text !== block.text) {
      open.target = fill(open.element, block, false);
      open.html = block.html;
      open.text = block.text;
      open.added = 0;
    }
    const more = block.more ?? [];
    if (more.length > open.added) open.target.append(more.slice(open.added).join(""));
    open.added = more.length;
  }

  function make(block, final) {
    const parent = groupOf(block);
    const one = h("div", {
      class: block.channel === "tool_call" ? "tool-call" : "block",
      dir: "auto",
    });
    fill(one, block, final);
    parent.append(one);
    return one;
  }

  function groupOf(block) {
    if (group?.channel === block.channel) return group.body;
    settleThinking();
    if (block.channel === "reasoning") {
      const details = thinking(app);
      element.append(details);
      group = { channel: block.channel, body: details.lastElementChild, details };
    } else {
      group = { channel: block.channel, body: element };
    }
    return group.body;
  }

  // Thinking that the reader has not opened himself is folded when it is over.
  function settleThinking() {
    if (group?.details) replace(group.details.querySelector(".thinking"), "Thought");
    if (group?.details && !group.details.dataset.touched) group.details.open = false;
  }

  function fill(one, block, final) {
    if (block.channel === "tool_call") return fillCall(app, one, block, final);
    if (block.html === undefined) {
      one.classList.add("plain");
      replace(one, block.text);
      return one;
    }
    setHtml(one, block.html);
    const target = targetIn(one);
    decorate(one, app);
    return target;
  }

  return { element, show, settle: settleThinking };
}

function sameBlocks(shown, blocks) {
  const last = shown.length - 1;
  if (shown[last] === blocks[last]) return true;
  return shown.every((one, at) => {
    const other = blocks[at];
    return one.html === other.html && one.text === other.text && one.channel === other.channel;
  });
}

function thinking(app) {
  const details = h(
    "details",
    { class: "reasoning", open: app.store.get().prefs.reasoningOpen },
    h("summary", {}, icon("think"), h("span", { class: "thinking" }, "Thinking…")),
    h("div", { class: "reasoning-body" }),
  );
  const summary = details.firstElementChild;
  summary.addEventListener("click", () => (details.dataset.touched = "yes"));
  return details;
}

/** The element that text added to an open block goes to. */
function targetIn(element) {
  let found = element;
  for (;;) {
    let child = found.lastChild;
    while (child && child.nodeType === Node.TEXT_NODE && child.data.trim() === "")
      child = child.previousSibling;
    const code = child?.nodeName === "CODE" && found.nodeName === "PRE";
    if (!child || !(code || DEEPER.test(child.nodeName))) return found;
    found = child;
  }
}

function fillCall(app, one, block, final) {
  const target = h("code", {}, final ? pretty(block.text) : block.text);
  replace(
    one,
    h(
      "div",
      { class: "code-head" },
      h("span", {}, icon("tool"), ` ${block.name || "A tool"}`),
      copyButton(app, "Copy the arguments", () => target.textContent),
    ),
    h("pre", { tabindex: "0" }, target),
  );
  return target;
}

/**
 * JSON as people read it; what is none stays as it is.
 * @param {string} text
 * @returns {string}
 */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
