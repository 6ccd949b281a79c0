/** Conversations come from the server in pages, the newest first. Effects that end in actions. */

import { conversationOf, generationOf } from "./state.js";

const PAGE = 20;
/** Pages that are looked through, at most, for what has changed or for a version. */
const MOST_PAGES = 20;

/**
 * @param {object} app
 * @returns {{open: function, older: function, refresh: function, ended: function, find: function}}
 */
export function createLoader({ store, api }) {
  const running = new Map(); // by name: {next: what is done behind it, or null; done}
  const pages = new Map(); // older pages that are on their way, by conversation

  async function page(id, query, signal) {
    const path = `/v1/conversations/${encodeURIComponent(id)}/responses`;
    return api.get(path, { query: { render: "html", limit: PAGE, ...query }, signal });
  }

  function take(id, found, changes = {}) {
    const about = found.conversation;
    store.send({
      type: "chat/nodes",
      id,
      nodes: found.data,
      changes: { state: "ready", about, ...changes },
    });
  }

  // Known ones follow each other: behind them comes a page without any.
  async function reread(id, before, gaps, signal) {
    const nodes = new Map();
    const unseen = new Set(before);
    let found = null;
    for (let count = 0; count < MOST_PAGES && unseen.size > 0; count += 1) {
      const begun = unseen.size < before.size;
      const next = await page(id, { after: found?.last_id }, signal);
      const known = next.data.filter((node) => unseen.delete(node.id)).length > 0;
      if (begun && !known) break;
      found = next;
      for (const node of found.data) nodes.set(node.id, node);
      if (!found.has_more) break;
    }
    store.send({
      type: "chat/read",
      id,
      nodes: [...nodes.values()],
      gone: [...unseen],
      gaps,
      changes: { state: "ready", about: found.conversation, ...older(found) },
    });
  }

  const older = (found) => ({ older: found.has_more ? found.last_id : null });

  // One request of a kind at a time. What is called for meanwhile is done once more behind it,
  // since the answer to the first may be older than what the second was called for.
  function once(name, work) {
    const known = running.get(name);
    if (known) {
      known.next = work;
      return known.done;
    }
    const now = { next: work };
    running.set(name, now);
    now.done = repeat(now).finally(() => running.delete(name));
    return now.done;
  }

  async function repeat(now) {
    while (now.next) {
      const work = now.next;
      now.next = null;
      try {
        await work();
      } catch (error) {
        if (!now.next) throw error;
      }
    }
  }

  const loader = {
    /** Load the newest page. */
    open: (id, signal) =>
      once(`open ${id}`, async () => {
        try {
          const found = await page(id, {}, signal);
          take(id, found, older(found));
        } catch (error) {
          if (signal?.aborted) return;
          const known = conversationOf(store.get(), id).state === "ready";
          if (!known)
            store.send({ type: "chat/conversation", id, changes: { state: "failed", error } });
        }
      }),

    /** Load the page before the oldest known one. */
    older(id, signal) {
      const { older: after } = conversationOf(store.get(), id);
      if (!pages.has(id) && after) {
        const asked = page(id, { after }, signal).then((found) => take(id, found, older(found)));
        pages.set(
          id,
          asked.finally(() => pages.delete(id)),
        );
      }
      return pages.get(id) ?? Promise.resolve();
    },

    /**
     * Load what is new since the newest page that is known, and how that page is now. After a gap
     * in the stream, which may have told of anything: how all that is known is now.
     */
    refresh: (id, signal) =>
      once(`refresh ${id}`, async () => {
        const { nodes, gaps } = conversationOf(store.get(), id);
        const before = new Set(nodes.map((node) => node.id));
        if (before.size === 0) return loader.open(id, signal);
        if (gaps > 0) return reread(id, before, gaps, signal);
        let after;
        for (let count = 0; count < MOST_PAGES; count += 1) {
          const found = await page(id, { after, limit: 5 }, signal);
          take(id, found);
          if (!found.has_more || found.data.some((node) => before.has(node.id))) return;
          after = found.last_id;
        }
      }).catch((error) => {
        if (signal?.aborted) return;
        const gone = error.status === 404;
        if (gone)
          store.send({ type: "chat/conversation", id, changes: { state: "failed", error } });
        else ignored(error);
      }),

    /** Load how an answer is, whose end was told. */
    ended: (id, node, signal) =>
      once(`ended ${node.id}`, async () => {
        const found = await page(id, { path: node.id, limit: 5 }, signal);
        take(id, found);
      }).catch((error) => signal?.aborted || ignored(error)),

    /** Load older pages until an answer is there; whether it is. */
    async find(id, answer, signal) {
      const known = () =>
        conversationOf(store.get(), id).nodes.find(
          (node) => generationOf(node.id) === generationOf(answer),
        );
      for (let count = 0; count < MOST_PAGES && !known(); count += 1) {
        if (!conversationOf(store.get(), id).older) break;
        await loader.older(id, signal);
      }
      return known() ?? null;
    },
  };
  return loader;
}

// What could not be refreshed is, as soon as the event stream is back: nothing to say.
function ignored(error) {
  console.debug("not refreshed:", error.message);
}
