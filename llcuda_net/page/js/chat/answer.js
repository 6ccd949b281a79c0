/** One answer: its blocks, what it waits for, how it ended, where its time went, its buttons. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { createBlocks } from "./blocks.js";
import { certaintyView } from "./certainty_view.js";
import { footer } from "./footer.js";
import { waitingText } from "./figures.js";
import { endingOf, problemOf, runs } from "./problem.js";
import { generationOf } from "./state.js";

/**
 * @param {object} app
 * @param {object} acts what its buttons do: again, another, choose, compare, ended; each may be
 *   absent
 * @param {AbortSignal} signal
 * @returns {{element: Element, show: function(object, object): void}} show(node, versions)
 */
export function createAnswer(app, acts, signal) {
  const blocks = createBlocks(app);
  const waiting = h("p", { class: "waiting muted" });
  const instead = h("div", { hidden: true });
  const ending = h("div", {});
  const foot = footer(app, { ...acts, view }, signal);
  const element = h(
    "div",
    { class: "answer", role: "group", "aria-label": "Answer" },
    blocks.element,
    instead,
    waiting,
    ending,
    foot.element,
  );
  let node = null;
  let watched = null; // of the live stream: {id, end}
  let other = null; // an AbortController while another view than the rendered one is shown
  let begun = false;
  signal.addEventListener("abort", () => unwatch());

  function show(next, versions) {
    const before = node;
    node = next;
    element.setAttribute("aria-busy", String(runs(node)));
    if (runs(node)) watch();
    else finish(before);
    const problem = runs(node) ? null : endingOf(node);
    replace(
      ending,
      problem && problemBox(problem, problem.again && acts.again ? () => acts.again(node) : null),
    );
    foot.show(node, versions);
  }

  function watch() {
    const id = node.generation ?? generationOf(node.id);
    if (watched?.id === id) return;
    unwatch();
    if (node.blocks?.length) blocks.show(node.blocks);
    const end = new AbortController();
    watched = { id, end, stop: app.live.watch(id) };
    const frame = framed(end.signal);
    app.store.watch(
      (state) => state.live.answers[id],
      (live) => frame(() => grow(live)),
      end.signal,
    );
    app.store.watch(
      (state) => state.live.runs[id],
      (run) => running(run),
      end.signal,
    );
  }

  function unwatch() {
    watched?.end.abort();
    watched?.stop();
    watched = null;
  }

  function grow(live) {
    if (!live) return;
    if (live.blocks.length || live.open) {
      blocks.show(live.blocks, live.open);
      begin();
    }
    if (live.ended || live.error) {
      blocks.settle();
      replace(waiting, null);
      acts.ended?.(node, live.ended);
    }
  }

  function begin() {
    if (begun) return;
    begun = true;
    replace(waiting, null);
    app.announce("The answer begins.");
  }

  function running(run) {
    const text = waitingText(run ?? null);
    if (begun || !runs(node)) return;
    if (waiting.textContent === text) return;
    if (waiting.textContent === "") app.announce(text);
    replace(waiting, text);
  }

  function finish(before) {
    const ran = watched !== null;
    unwatch();
    begun = true;
    replace(waiting, null);
    blocks.show(node.blocks ?? []);
    blocks.settle();
    if (ran && before && runs(before)) {
      app.announce(endingOf(node)?.title ?? "The answer is complete.");
    }
  }

  // The text as it is rendered (""), as it was written ("raw"), or with its certainty ("shaded").
  async function view(mode) {
    other?.abort();
    other = mode ? new AbortController() : null;
    instead.hidden = !mode;
    blocks.element.hidden = Boolean(mode);
    if (mode === "raw")
      replace(instead, h("pre", { class: "raw", tabindex: "0" }, node.text ?? ""));
    if (mode !== "shaded") return;
    const end = AbortSignal.any([signal, other.signal]);
    replace(instead, h("p", { class: "muted" }, "Asking for the figures…"));
    try {
      replace(instead, certaintyView(await logprobsOf(app, node, end), end));
    } catch (error) {
      if (!end.aborted) replace(instead, problemBox(problemOf(error)));
    }
  }

  return { element, show };
}

async function logprobsOf(app, node, signal) {
  const query = { "include[]": "message.output_text.logprobs" };
  const response = await app.api.get(`/v1/responses/${encodeURIComponent(node.id)}`, {
    query,
    signal,
  });
  const parts = response.output.flatMap((item) => (item.type === "message" ? item.content : []));
  return parts.flatMap((part) => part.logprobs ?? []);
}

// The last call in each frame counts; none is made of what nobody sees.
function framed(signal) {
  let due = null;
  return (work) => {
    if (due === null) {
      requestAnimationFrame(() => {
        const run = due;
        due = null;
        if (!signal.aborted) run();
      });
    }
    due = work;
  };
}

/**
 * What went wrong, with a button to try again.
 * @param {import("./problem.js").Problem} problem
 * @param {?function(): void} again
 * @param {...Element} more buttons
 * @returns {Element}
 */
export function problemBox(problem, again = null, ...more) {
  const detail = problem.detail && problem.detail !== problem.title ? problem.detail : "";
  return h(
    "div",
    { class: "notice warn ending" },
    h("p", {}, h("strong", {}, `${problem.title}${detail ? ": " : "."}`), detail),
    again && h("button", { class: "outline", onclick: again }, icon("retry"), "Try again"),
    more,
  );
}
