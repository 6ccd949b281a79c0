/** The view of one answer, of whatever API: read it, stop it, go on from it. */

import { h, replace } from "../core/dom.js";
import { go, href } from "../core/router.js";
import { viewHead } from "../shell/frame.js";
import { problemBox } from "./answer.js";
import { composer } from "./composer.js";
import { createFeed } from "./feed.js";
import { itemsAgain, nodesOfGeneration } from "./generation.js";
import { modelButton } from "./model_picker.js";
import { modelOf, takesImages } from "./models.js";
import { problemOf, runs } from "./problem.js";
import { chatOf } from "./service.js";
import { settingsOf, settingsOfNode } from "./settings.js";
import { answerOf, generationOf } from "./state.js";
import { bodyOf, inputOf, questionOf } from "./turn.js";

/**
 * @param {object} app
 * @param {{id: string}} route id: of a generation
 * @param {AbortSignal} signal
 * @returns {Element}
 */
export function answerView(app, route, signal) {
  const { store, api } = app;
  const { outbox } = chatOf(app);
  const id = generationOf(route.id);
  const place = `a-${id}`;
  const title = h("span", {}, "Answer");
  const note = h("div", { class: "column" });
  const below = h("div", { class: "composer-frame column" });
  const again = (node) =>
    ask(itemsAgain(answerOf(store.get(), id).about), null, settingsOfNode(node));
  const acts = { ended: () => load(), again };
  const feed = createFeed(app, { answer: acts }, () => {}, signal);
  const writer = composer(app, { place, send, stop }, signal);
  const read = (state) => settingsOf(state, place, nodes());
  const picker = modelButton(
    app,
    {
      current: (state) => read(state).model,
      choose: (model) => store.send({ type: "chat/settings", place, settings: { model } }),
    },
    signal,
  );
  let loading = false;
  let due = false; // it was called for meanwhile

  store.watch((state) => answerOf(state, id), show, signal);
  store.watch((state) => state.chat.models, show, signal);
  store.watch(
    (state) => state.live.connection,
    (_, before) => before && load(),
    signal,
  );
  signal.addEventListener("abort", () =>
    store.send({ type: "chat/answer", id, answer: undefined }),
  );
  load();

  function nodes() {
    return answerOf(store.get(), id)?.nodes ?? [];
  }

  async function load() {
    if (loading) return void (due = true);
    loading = true;
    due = false;
    try {
      const about = await api.get(`/v1/generations/${encodeURIComponent(id)}`, {
        query: { render: "html" },
        signal,
      });
      store.send({ type: "chat/answer", id, answer: { about, nodes: nodesOfGeneration(about) } });
    } catch (error) {
      if (signal.aborted || (nodes().length > 0 && error.status !== 404)) return;
      store.send({ type: "chat/answer", id, answer: { error, nodes: [] } });
    } finally {
      loading = false;
      if (due && !signal.aborted) load();
    }
  }

  function show() {
    const answer = answerOf(store.get(), id);
    if (!answer) return replace(note, h("p", { class: "muted", role: "status" }, "Loading…"));
    const { about, error } = answer;
    const problem = error && problemOf(error);
    replace(
      note,
      problem && problemBox(problem, problem.again ? load : null),
      about?.conversation && part(about),
    );
    // Of those that are made now; until it is loaded there is none.
    acts.again = about && !about.conversation && itemsAgain(about) ? again : undefined;
    feed.show(
      answer.nodes.map((node) => ({ node, versions: null })),
      false,
    );
    const last = answer.nodes.at(-1);
    const question = last ? questionOf(last.asked ?? last.input).text.slice(0, 80) : "";
    replace(title, question || "Answer");
    document.title = `${title.textContent} – llcuda`;
    if (!last) return replace(below);
    const running = runs(last);
    const images = takesImages(modelOf(store.get().chat.models, read(store.get()).model));
    writer.set({ busy: running ? "running" : "", images });
    if (below.childElementCount) return;
    replace(
      below,
      feed.button,
      h(
        "p",
        { class: "small muted" },
        "A question here begins a conversation that goes on from this answer.",
      ),
      writer.element,
      h("div", { class: "row" }, picker),
    );
  }

  function part(about) {
    const target = href("c", about.conversation, { answer: `resp_${id}` });
    return h(
      "p",
      { class: "notice" },
      "This answer is part of ",
      h("a", { href: target }, "a conversation"),
      ".",
    );
  }

  function send({ text, images }) {
    ask(inputOf(text, images), `resp_${id}`, read(store.get()));
  }

  function ask(input, previous, settings) {
    const { certainty } = store.get().prefs;
    if (!previous) delete settings.instructions; // the items have them
    const key = outbox.send({
      conversation: null,
      base: null,
      body: bodyOf({ ...settings, input, previous, certainty }),
    });
    go(href("c", `new-${key}`));
  }

  async function stop() {
    try {
      await api.post(`/v1/generations/${encodeURIComponent(id)}/cancel`, {});
      app.announce("Stopped");
    } catch (error) {
      app.notify(`It is not stopped: ${error.message}`, { bad: true });
    }
  }

  return h(
    "div",
    { class: "view chat" },
    viewHead(app, title),
    h("div", { class: "chat-body" }, h("div", { class: "chat-main" }, note, feed.element, below)),
  );
}
