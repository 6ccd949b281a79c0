/** The requests of the history: pages of lists, what is new at their beginning, searches. */

import { ApiError } from "../core/api.js";
import { PAGE, cursorOf, indexOf, placeOf, slice } from "./list.js";
import { hasWord, wordsQuery } from "./text.js";

const PATHS = { conversations: "/v1/conversations", answers: "/v1/generations" };
/** Pages of a list that are asked for at once, at most. */
const AT_ONCE = 3;
/** Milliseconds after which what is new is fetched, and after which a search begins. */
const SETTLE = 400,
  TYPED = { titles: 150, words: 150, meaning: 450 };
/** Milliseconds after which a search is said to be slow. */
const SLOW = 4000;
const HITS = { titles: 20, words: 50, meaning: 20 };
/** What is found by meaning where nothing can be. */
const UNAVAILABLE = {
  hits: [],
  code: "unsupported",
  error: "the server analyses no answers, or has no model that gives embeddings.",
};
const KEEPS_NOTHING = "this server keeps nothing; start it without --store none.";
/** Conversations that were changed and are fetched one by one, at most. */
const ONE_BY_ONE = 20;

/**
 * @returns {{see: function(string, number, number): void, retry: function(string): void,
 *   search: function(string, Object?): void}}
 */
export function createLoads(app) {
  const { store, api } = app;
  const state = () => store.get().history;
  const asked = new Map(); // what is under way, and the key of the list that it is for
  const later = {}; // timers of changes

  function query(name) {
    if (name === "conversations") return {};
    const { state: states, model, since } = state().filter;
    return { state: states || null, model: model || null, since: since || null };
  }

  async function page(name, number) {
    const list = state()[name];
    const after = cursorOf(list, number);
    const { key } = list;
    if (name === "conversations" && store.get().session.capabilities?.history === false) {
      store.send({ type: "history/failed", list: name, key, error: KEEPS_NOTHING });
      return;
    }
    const mark = `${name} ${number} ${after}`;
    const others = [...asked.values()].filter((one) => one === key).length;
    if (asked.get(mark) === key || others >= AT_ONCE) return;
    asked.set(mark, key);
    try {
      const found = await api.get(PATHS[name], { query: { ...query(name), limit: PAGE, after } });
      const { data: entries, has_more: more } = found;
      store.send({
        type: "history/page",
        list: name,
        key,
        number,
        after,
        entries: entries.map(kept),
        more,
      });
    } catch (error) {
      // The entry that it comes behind was deleted: the page before it is fetched again.
      if (error.status === 404 && after)
        store.send({ type: "history/lost", list: name, key, number: number - 1 });
      else store.send({ type: "history/failed", list: name, key, error: error.message });
    } finally {
      if (asked.get(mark) === key) asked.delete(mark);
    }
  }

  /** Entries `first` to `end` are seen: fetch what of them is not here. */
  function see(name, first, end) {
    const list = state()[name];
    if (list.error) return;
    store.send({ type: "history/seen", list: name, key: list.key, first, end });
    const missing = slice(list, first, end).indexOf(null);
    if (missing >= 0) page(name, placeOf(list, first + missing).number);
    else if (list.more && !placeOf(list, end + PAGE / 2)) page(name, list.pages.length);
  }

  function retry(name) {
    store.send({ type: "history/failed", list: name, error: null });
    page(name, state()[name].pages.length);
  }

  async function head(name) {
    const { key, pages, more } = state()[name];
    if (!pages.length && more) return; // it is not read yet
    try {
      const found = await api.get(PATHS[name], { query: { ...query(name), limit: PAGE } });
      store.send({
        type: "history/head",
        list: name,
        key,
        entries: found.data.map(kept),
        more: found.has_more,
      });
    } catch {
      // the next change, or the stream that comes back, has it fetched again
    }
  }

  async function changes() {
    const ids = state().changed;
    store.send({ type: "history/fetched", ids });
    const here = ids.filter((id) => indexOf(state().conversations, id) >= 0).slice(0, ONE_BY_ONE);
    for (const id of here) {
      const changed = await api.get(`${PATHS.conversations}/${id}`).catch(() => null);
      if (changed)
        store.send({ type: "history/changed", list: "conversations", id, changes: kept(changed) });
    }
  }

  // First what was changed: one that is pinned no more may be behind what is at the beginning now.
  async function renew(name) {
    if (name === "conversations") await changes();
    await head(name);
  }

  for (const name of Object.keys(PATHS)) {
    store.watch(
      (all) => all.history[name].stale,
      (stale) => {
        if (stale) later[name] ??= setTimeout(() => ((later[name] = null), renew(name)), SETTLE);
      },
    );
  }

  // -- search ---------------------------------------------------------------------------------

  let searching = new AbortController();

  /** Search for a text as it is typed; what was searched before is given up. */
  function search(text, { now = false } = {}) {
    searching.abort();
    searching = new AbortController();
    const { signal } = searching;
    store.send({ type: "history/search", text });
    if (!text) return;
    for (const part of Object.keys(HITS)) {
      const timer = setTimeout(() => ask(part, text, signal), now ? 0 : TYPED[part]);
      signal.addEventListener("abort", () => clearTimeout(timer));
    }
  }

  async function ask(part, text, signal) {
    const { hits: before = [], code } = state().search.parts[part] ?? {};
    const found = (found) => store.send({ type: "history/found", text, part, found });
    if (part === "words" && !hasWord(text)) return found({ hits: [] });
    if (
      part === "meaning" &&
      (code === "unsupported" || store.get().session.capabilities?.semantic === false)
    ) {
      return found(UNAVAILABLE);
    }
    found({ hits: before, loading: true });
    const slow = setTimeout(
      () => signal.aborted || found({ hits: before, loading: true, slow: true }),
      SLOW,
    );
    try {
      const [path, asks] = {
        titles: [PATHS.conversations, { q: text }],
        words: [PATHS.answers, { q: wordsQuery(text) }],
        meaning: [PATHS.answers, { semantic: text }],
      }[part];
      const { data: hits, search: about = {} } = await api.get(path, {
        query: { ...asks, limit: HITS[part] },
        signal,
      });
      found({ hits, ...about });
    } catch (error) {
      if (signal.aborted) return;
      const passing = !(error instanceof ApiError) || error.passing;
      found({ hits: [], error: error.message, code: error.code, passing });
    } finally {
      clearTimeout(slow);
    }
  }

  return { see, retry, search };
}

/** What is kept of an entry: a list may have thousands. */
function kept(entry) {
  if (entry.object === "conversation") {
    const { id, title, preview, pinned, entries, updated_at: updated, created_at: created } = entry;
    return { id, title, preview, pinned, entries, updated, created };
  }
  const { id, state, created, model, preview, tokens, conversation, owner } = entry;
  return {
    id,
    state,
    created,
    model,
    preview,
    tokens,
    conversation,
    owner,
    text: preview ? "" : entry.text,
  };
}
