/** Below an answer: its model, speed and time, its versions and buttons. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { openMenu } from "../shell/menu.js";
import { copied, copyButton } from "./decorate.js";
import { counted, duration, phasesOf, rateText, timeText } from "./figures.js";
import { runs } from "./problem.js";
import { generationOf } from "./state.js";
import { switcher } from "./switcher.js";

/**
 * @param {object} app
 * @param {object} acts as of createAnswer, and `view(mode)`: "", "raw" or "shaded"
 * @param {AbortSignal} signal
 * @returns {{element: Element, show: function(object, ?object): void}}
 */
export function footer(app, acts, signal) {
  const element = h("div", { class: "answer-foot" });
  let shown = "";
  let mode = "";
  let rate = null; // an AbortController while the speed of a running answer is shown

  function show(node, versions) {
    const answers = versions?.answers ?? [];
    // Anew only where something that is seen has changed: a focused button stays.
    const key = JSON.stringify([
      node.status,
      node.model,
      node.usage,
      node.logprobs,
      answers,
      node.id,
    ]);
    if (key === shown) return;
    shown = key;
    rate?.abort();
    const focused = element.contains(document.activeElement)
      ? document.activeElement.getAttribute("aria-label")
      : null;
    if (node.type === "item") {
      const copy = copyButton(app, "Copy", () => node.text ?? "");
      return replace(element, copy);
    }
    replace(element, runs(node) ? running(node) : [figures(node), buttons(node, versions)]);
    if (focused) {
      [...element.querySelectorAll("button")]
        .find((one) => one.getAttribute("aria-label") === focused)
        ?.focus();
    }
  }

  function running(node) {
    const speed = h("span", {});
    rate = new AbortController();
    const id = node.generation ?? generationOf(node.id);
    app.store.watch(
      (state) => state.live.runs[id]?.tokens_per_second,
      (now) => replace(speed, now ? ` · ${rateText(now)}` : null),
      AbortSignal.any([signal, rate.signal]),
    );
    return h("p", { class: "figures small muted" }, node.model, speed);
  }

  function buttons(node, versions) {
    const answers = versions?.answers ?? [];
    const sure = button("shade", "How sure the model was", () => set("shaded"));
    sure.setAttribute("aria-pressed", String(mode === "shaded"));
    const set = (name) => {
      mode = mode === name ? "" : name;
      sure.setAttribute("aria-pressed", String(mode === "shaded"));
      acts.view(mode);
    };
    return h(
      "div",
      { class: "buttons", role: "toolbar", "aria-label": "What to do with this answer" },
      answers.length > 1 &&
        switcher("answer", versions.answer, answers.length, (at) => acts.choose(answers[at])),
      answers.length > 1 &&
        button("columns", "Versions side by side", () => acts.compare(node, answers)),
      copyButton(app, "Copy the answer", () => node.text ?? ""),
      acts.again && button("retry", "Answer again", () => acts.again(node)),
      node.logprobs != null && sure,
      moreButton(node, () => set("raw")),
    );
  }

  function moreButton(node, raw) {
    const open = button("more", "More", () => {
      const id = node.generation ?? generationOf(node.id);
      openMenu(open, [
        ...(acts.another
          ? [
              {
                label: "Answer again by another model…",
                icon: "retry",
                run: () => acts.another(node, open),
              },
            ]
          : []),
        {
          label: mode === "raw" ? "Show it rendered" : "Show it as it was written",
          icon: "edit",
          run: raw,
        },
        { label: "Copy a link to it", icon: "copy", run: () => copyLink(app, id) },
        { label: "Save as Markdown", icon: "download", run: () => save(id, "markdown") },
        { label: "Save as JSON", icon: "download", run: () => save(id, "json") },
      ]);
    });
    return open;
  }

  return { element, show };
}

function button(name, label, run) {
  return h(
    "button",
    { class: "square small", "aria-label": label, title: label, onclick: run },
    icon(name),
  );
}

async function copyLink(app, id) {
  const done = await copied(`${location.origin}${location.pathname}#/a/${encodeURIComponent(id)}`);
  if (done) app.notify("The link is copied. Only you can open it.");
  else app.notify("The browser does not let this page copy.", { bad: true });
}

/** Have the browser save what a path answers. */
function save(id, format) {
  const path = `/v1/generations/${encodeURIComponent(id)}/export?format=${format}`;
  const link = h("a", { href: path, download: "", hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
}

/** One line of figures, with where the time went on demand. */
function figures(node) {
  const tokens = node.usage?.output_tokens ?? node.tokens;
  const total = node.timings?.total;
  const words = [
    node.model,
    rateText(node.tokens_per_second),
    tokens > 0 && counted(tokens, "token"),
    total > 0 && duration(total),
  ].filter(Boolean);
  const phases = phasesOf(node.timings);
  if (phases.length === 0) return h("p", { class: "figures small muted" }, words.join(" · "));
  return h(
    "details",
    { class: "figures small muted" },
    h("summary", { title: "Where the time went" }, words.join(" · ")),
    h(
      "dl",
      { class: "phases" },
      phases.map(({ words: name, ms, share, phase }) => {
        const bar = h("span", { class: `bar phase-${phase}` });
        bar.style.width = `${Math.max(1, share * 100)}%`;
        return [
          h("dt", {}, name),
          h("dd", {}, h("span", { class: "bar-frame" }, bar), duration(ms)),
        ];
      }),
      fact("prompt", promptText(node.usage)),
      fact("asked", node.created_at && timeText(node.created_at)),
      fact("seed", node.seed),
    ),
  );
}

function promptText(usage) {
  if (!usage?.input_tokens) return null;
  const cached = usage.input_tokens_details?.cached_tokens ?? 0;
  return (
    counted(usage.input_tokens, "token") + (cached > 0 ? `, ${cached} of them known already` : "")
  );
}

function fact(name, value) {
  if (value === null || value === undefined || value === 0) return null;
  return [h("dt", {}, name), h("dd", {}, String(value))];
}
