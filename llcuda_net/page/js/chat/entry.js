/** A question with its answer, as one article of the feed. */

import { h } from "../core/dom.js";
import { createAnswer, problemBox } from "./answer.js";
import { createQuestion } from "./question.js";
import { problemOf } from "./problem.js";
import { questionOf } from "./turn.js";

/**
 * @param {object} app
 * @param {object} acts of questions and answers; of turns, `again(turn)`, `back(turn)`, `drop(turn)`
 * @returns {{element: Element, show: function(object, ?object): void, end: function(): void}}
 */
export function createEntry(app, acts) {
  const life = new AbortController();
  const element = h("article", { class: "entry", tabindex: "-1" });
  const question = createQuestion(app, acts.question ?? {});
  const outcome = h("div", {});
  let answer = null;
  let told = ""; // of a turn, so that a button in it keeps the focus while it is tried again
  element.append(question.element, outcome);

  function show(node, versions) {
    element.setAttribute(
      "aria-label",
      questionOf(node.asked ?? node.input).text.slice(0, 80) || "Question",
    );
    const said = node.type === "item" && (node.role ?? node.input[0]?.role) === "assistant";
    question.element.hidden = said || node.input?.length === 0;
    if (!said) question.show(node, versions);
    if (node.turn) return showTurn(node.turn);
    if (node.type === "item" && !said) return outcome.replaceChildren();
    if (!answer) {
      answer = createAnswer(app, acts.answer ?? {}, life.signal);
      outcome.replaceChildren(answer.element);
    }
    answer.show(node, versions);
  }

  function showTurn(turn) {
    const now = JSON.stringify([turn.key, turn.state, turn.error]);
    if (now === told) return;
    told = now;
    const { title, detail, again } = problemOf(turn.error);
    if (turn.state === "sending") {
      return outcome.replaceChildren(h("p", { class: "waiting muted" }, "Sending…"));
    }
    const give = (label, run) => h("button", { class: "outline", onclick: run }, label);
    if (turn.state === "waiting") {
      const words = { title: `${title}. It is sent by itself as soon as it can be`, detail: "" };
      outcome.replaceChildren(
        problemBox(
          words,
          null,
          give("Do not send it", () => acts.turn.back(turn)),
        ),
      );
    } else {
      const retry = again ? () => acts.turn.again(turn) : null;
      outcome.replaceChildren(
        problemBox(
          { title: `Not sent. ${title}`, detail },
          retry,
          give("Change it", () => acts.turn.back(turn)),
          give("Discard", () => acts.turn.drop(turn)),
        ),
      );
    }
  }

  return { element, show, end: () => (life.abort(), element.remove()) };
}
