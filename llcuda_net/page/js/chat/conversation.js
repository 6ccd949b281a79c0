/** The view of a conversation, and of a new one. */

import { h, replace } from "../core/dom.js";
import { bind, writes } from "../core/keys.js";
import { go, href } from "../core/router.js";
import { viewHead } from "../shell/frame.js";
import { problemBox } from "./answer.js";
import { compare } from "./compare.js";
import { composer } from "./composer.js";
import { moveDraft } from "./drafts.js";
import { createFeed } from "./feed.js";
import { expanded } from "./generation.js";
import { modelButton, openModels } from "./model_picker.js";
import { modelOf, takesImages } from "./models.js";
import { settingsPanel } from "./panel.js";
import { problemOf, runs } from "./problem.js";
import { chatOf } from "./service.js";
import { settingsOf, settingsOfFields, settingsOfNode } from "./settings.js";
import { conversationOf, generationOf, turnIn } from "./state.js";
import { lacksVersions, leafBelow, pathBefore, pathTo, questionKey, treeOf, versionsOf } from "./tree.js";
import { again, bodyOf, inputOf, nodeOfTurn, parted, questionOf } from "./turn.js";

const HELLO = "Ask something. The answer goes on when this page is closed.";

/**
 * @param {object} app
 * @param {{id: string}} route id: of a conversation, "new-…" while its first question is on its
 *   way, "" of a new one
 * @param {AbortSignal} signal
 * @returns {Element}
 */
export function conversationView(app, route, signal) {
  const { store, api } = app;
  const { loader, outbox } = chatOf(app);
  const place = route.id || "new";
  const id = route.id && !route.id.startsWith("new-") ? route.id : null;
  const title = h("span", {}, "New chat");
  const note = h("div", { class: "column" });
  let opened = null; // a promise: its newest page has come
  let shown = { tree: treeOf([]), path: [] };
  const running = () => shown.path.findLast((node) => !node.turn && runs(node)) ?? null;
  const settingsIn = (state) => settingsOf(state, place, shown.path);
  const settingsNow = () => settingsIn(store.get());
  const acts = {
    question: { edit, choose },
    answer: {
      again: (node) => repeat(node),
      another,
      choose,
      compare: side,
      ended: (node) => loader.ended(id, node, signal),
    },
    turn: { again: retry, back, drop: discard },
  };
  const feed = createFeed(app, acts, () => id && loader.older(id, signal).catch(() => {}), signal);
  const writer = composer(app, { place, send, stop }, signal);
  const panel = settingsPanel(app, { read: settingsNow, keep: setSettings });
  const picker = modelButton(
    app,
    { current: (state) => settingsIn(state).model, choose: (model) => setSettings({ model }) },
    signal,
  );
  const element = h(
    "div",
    { class: "view chat" },
    viewHead(app, title, panel.button),
    h(
      "div",
      { class: "chat-body" },
      h(
        "div",
        { class: "chat-main" },
        note,
        feed.element,
        h(
          "div",
          { class: "composer-frame column" },
          feed.button,
          writer.element,
          h("div", { class: "row" }, picker),
        ),
      ),
      panel.element,
    ),
  );

  if (id) {
    opened = loader.open(id, signal);
    signal.addEventListener("abort", () => store.send({ type: "chat/closed", id }));
  }
  bind(
    "Escape",
    "Stop the answer",
    ({ target }) => {
      const elsewhere = writes(target) && !element.contains(target); // as in the search
      return elsewhere || document.querySelector(".drawn") || !running() ? false : stop();
    },
    signal,
  );
  store.watch((state) => conversationOf(state, id), show, signal);
  store.watch((state) => state.chat.places[place], settled, signal);
  store.watch((state) => turnIn(state, place), moved, signal);
  store.watch((state) => state.chat.models, setWriter, signal);
  store.watch(
    (state) => state.chat.settings[place],
    () => (setWriter(), panel.refresh()),
    signal,
  );
  store.watch(
    (state) => conversationOf(state, id).stale,
    (stale) => stale && id && loader.refresh(id, signal),
    signal,
  );
  store.watch(
    (state) => state.route.query?.answer,
    (answer) => answer && id && find(answer),
    signal,
  );
  if (matchMedia("(pointer: fine)").matches) queueMicrotask(() => writer.focus());

  function moved(turn, before) {
    const lost = route.id && !id && !turn && !store.get().chat.places[place];
    if (lost) go(href(""), { replaced: true });
    show();
    if (turn && !before) feed.toEnd();
  }

  // The first question has its conversation: what was written meanwhile goes with it.
  function settled(conversation) {
    if (!conversation) return;
    moveDraft(place, conversation);
    go(href("c", conversation), { replaced: true });
  }

  function show() {
    if (signal.aborted) return;
    const state = store.get();
    const one = conversationOf(state, id);
    const turn = turnIn(state, place);
    const tree = treeOf(one.nodes);
    const path = turn
      ? pathBefore(tree, turn)
      : pathTo(tree, one.leaf && leafBelow(tree, one.leaf));
    shown = { tree, path };
    const seen = (turn ? [...path, nodeOfTurn(turn)] : path).flatMap(expanded).map((node) => ({
      node,
      versions: tree.nodes.has(node.id) ? versionsOf(tree, node) : null,
    }));
    feed.show(seen, one.older !== null && path[0]?.previous !== null);
    if (one.older !== null && lacksVersions(tree, path)) loader.older(id, signal).catch(() => {});
    replace(title, one.about?.title ?? one.about?.preview ?? (id ? "Chat" : "New chat"));
    document.title = `${title.textContent} – llcuda`;
    replace(note, noteOf(one));
    setWriter();
    panel.refresh();
  }

  function noteOf(one) {
    if (one.state === "failed") {
      const problem = problemOf(one.error);
      return problemBox(problem, problem.again ? () => loader.open(id, signal) : null);
    }
    if (!route.id) return h("p", { class: "hello muted" }, HELLO);
    const loading = id && one.state === "loading";
    return loading ? h("p", { class: "muted", role: "status" }, "Loading…") : null;
  }

  function setWriter() {
    const state = store.get();
    const turn = turnIn(state, place);
    const busy = turn && turn.state !== "failed" ? "sending" : running() ? "running" : "";
    writer.set({ busy, images: takesImages(modelOf(state.chat.models, settingsNow().model)) });
  }

  function setSettings(set) {
    const settings = set === null ? undefined : { ...store.get().chat.settings[place], ...set };
    store.send({ type: "chat/settings", place, settings });
  }

  function send({ text, images }) {
    ask({ input: inputOf(text, images), base: shown.path.at(-1)?.id ?? null });
  }

  function ask({ input, base, insteadOf, settings = settingsNow() }) {
    const state = store.get();
    const unsent = turnIn(state, place);
    if (unsent && unsent.state !== "failed") {
      app.notify("Another question is on its way. Wait until it is sent.");
      return false;
    }
    const body = bodyOf({
      ...settings,
      input,
      previous: base ?? unsent?.body.previous_response_id,
      insteadOf,
      certainty: state.prefs.certainty,
    });
    if (unsent) takeBack(unsent, id ? outbox.drop : outbox.giveUp);
    const key = outbox.send({ conversation: id, base, body });
    if (id) return feed.toEnd();
    moveSettings(`new-${key}`, state.chat.settings[place]);
    moveDraft(place, `new-${key}`);
    go(href("c", `new-${key}`), { replaced: Boolean(route.id) });
  }

  function moveSettings(to, settings) {
    store.send({ type: "chat/settings", place: to, settings });
    if (!route.id) setSettings(null);
  }

  function repeat(node, model) {
    const had = settingsOfNode(node);
    const { seed, ...sampling } = had.sampling; // the same one would give the same answer
    const settings = { ...had, sampling, ...store.get().chat.settings[place] };
    if (model) settings.model = model;
    ask({ input: again(node.input), base: node.previous, insteadOf: node.id, settings });
  }

  function another(node, anchor) {
    openModels(app, anchor, node.model, (model) => repeat(node, model));
  }

  function edit(node, text) {
    const { before, asked } = parted(node.input);
    const images = questionOf(asked).images.map((url) => ({ url }));
    const input = [...again(before), ...inputOf(text, images)];
    return ask({ input, base: node.previous, insteadOf: node.id });
  }

  function choose(answer) {
    store.send({ type: "chat/conversation", id, changes: { leaf: answer } });
    requestAnimationFrame(() => feed.reveal(answer));
  }

  function side(node, answers) {
    const nodes = answers.map((one) => shown.tree.nodes.get(one));
    compare(app, nodes, node.id, { choose, ended: acts.answer.ended });
  }

  async function stop() {
    const node = running();
    if (!node) return;
    try {
      await api.post(`/v1/responses/${encodeURIComponent(node.id)}/cancel`, {});
      app.announce("Stopped");
    } catch (error) {
      app.notify(`It is not stopped: ${error.message}`, { bad: true });
    }
  }

  // The model that is gone is not asked again where another one has been chosen.
  function retry(turn) {
    const gone = turn.error?.code === "model_not_found";
    outbox.again(turn.key, gone ? { model: settingsNow().model || undefined } : {});
  }

  // What was not sent, or shall not be, is written again, with its settings, where it was written.
  function back(turn) {
    const alone = isAlone(turn);
    const settings = store.get().chat.settings[place] ?? settingsOfFields(turn.body);
    const answer = turn.base === null && turn.body.previous_response_id; // below one by itself
    takeBack(turn, outbox.giveUp);
    if (id && !answer && !alone) return setSettings(settings);
    const gone = answer ? `a-${generationOf(answer)}` : "new";
    store.send({ type: "chat/settings", place: gone, settings });
    moveDraft(place, gone);
    go(answer ? href("a", generationOf(answer)) : href(""), { replaced: true });
  }

  function discard(turn) {
    const alone = isAlone(turn);
    outbox.giveUp(turn.key);
    if (alone) go(href(""), { replaced: true });
  }

  // Whether its conversation was made for it, and goes with it.
  const isAlone = (turn) => id && turn.place !== id && shown.tree.nodes.size === 0;

  // The words of a turn that is dropped; those of an answer that is asked for again are not lost.
  function takeBack({ key, body }, drop) {
    drop(key);
    const other = shown.tree.nodes.get(body.instead_of);
    if (other && questionKey(other) === questionKey(body)) return;
    const { text, images } = questionOf(body.input);
    writer.fill(
      text,
      images.map((url) => ({ name: "image", url })),
    );
  }

  async function find(answer) {
    await opened;
    const node = await loader.find(id, answer, signal);
    if (!node || signal.aborted) return;
    choose(node.id);
  }

  return element;
}
