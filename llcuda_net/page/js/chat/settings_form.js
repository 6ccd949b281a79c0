/**
 * The system prompt and the settings of answers, as a form: of a conversation, and of new chats.
 */

import { h, replace } from "../core/dom.js";
import { SETTINGS, parsed, written } from "./sampling.js";

let forms = 0;

/**
 * @param {object} options
 * @param {function({instructions: string, sampling: object}): void} options.change
 * @param {function(): void} [options.reset] back to what was before
 * @param {string} [options.note] whom it is for
 * @returns {{element: Element, set: function({instructions: string, sampling: object}): void}}
 */
export function settingsForm({ change, reset, note }) {
  forms += 1;
  let values = { instructions: "", sampling: {} };
  const prompt = h("textarea", { rows: "4", id: `instructions-${forms}`, placeholder: "None" });
  prompt.addEventListener("input", () => send({ instructions: prompt.value }));
  const fields = SETTINGS.map((setting) => field(setting, `${setting.name}-${forms}`));
  const element = h(
    "div",
    { class: "settings-form" },
    note && h("p", { class: "small muted" }, note),
    h(
      "div",
      { class: "field" },
      h("label", { for: prompt.id }, "System prompt: what the model is told before all questions"),
      prompt,
    ),
    fields.map((one) => one.element),
    reset && h("button", { type: "button", class: "outline", onclick: reset }, "Reset"),
  );

  function send(changes) {
    values = { ...values, ...changes };
    change(values);
  }

  function field(setting, id) {
    const input = setting.lines
      ? h("textarea", { rows: "2", id })
      : h("input", { id, inputmode: setting.whole ? "numeric" : "decimal", autocomplete: "off" });
    const ranged = setting.high <= 2 && !setting.lines;
    const range =
      ranged &&
      h("input", {
        type: "range",
        min: setting.low,
        max: setting.high,
        step: setting.step,
        "aria-label": setting.label,
        tabindex: "-1",
      });
    const problem = h("span", { class: "problem small", role: "alert" });
    input.placeholder = setting.absent;
    input.setAttribute("aria-describedby", `${id}-hint`);
    input.addEventListener("input", () => taken(input.value));
    if (range)
      range.addEventListener("input", () => ((input.value = range.value), taken(range.value)));

    function taken(text) {
      const { value, problem: wrong } = parsed(setting, text);
      replace(problem, wrong);
      input.setAttribute("aria-invalid", String(wrong !== ""));
      if (wrong) return;
      slide(value);
      const { [setting.name]: _, ...others } = values.sampling;
      send({ sampling: value === undefined ? others : { ...others, [setting.name]: value } });
    }

    function slide(value) {
      if (range) range.value = value ?? Number(setting.absent);
    }

    return {
      name: setting.name,
      set(value) {
        replace(problem, null);
        input.removeAttribute("aria-invalid");
        input.value = written(setting, value);
        slide(value);
      },
      element: h(
        "div",
        { class: "field" },
        h("label", { for: id }, setting.label),
        range ? h("div", { class: "ranged" }, range, input) : input,
        h("span", { class: "small muted hint", id: `${id}-hint` }, setting.hint),
        problem,
      ),
    };
  }

  return {
    element,
    set(next) {
      values = { instructions: next.instructions ?? "", sampling: next.sampling ?? {} };
      prompt.value = values.instructions;
      for (const one of fields) one.set(values.sampling[one.name]);
    },
  };
}
