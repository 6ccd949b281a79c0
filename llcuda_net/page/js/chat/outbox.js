/**
 * Questions on their way. A turn is kept until the server has answered, so that a reload, a closed
 * tab or a restart of the server loses none; its key makes that it is done once.
 */

import { ApiError, pause } from "../core/api.js";
import { go, href } from "../core/router.js";

const PREFIX = "llcuda.turn.";
/** Milliseconds after which another tab has surely asked for the lock of what it sends. */
const TAKEN = 1000;

/**
 * @typedef {object} Turn
 * @property {string} key its Idempotency-Key
 * @property {string} user whose it is
 * @property {string} place the conversation, or "new-…" where it has none yet
 * @property {?string} conversation
 * @property {?string} base the response that it goes on from
 * @property {object} body of POST /v1/responses
 * @property {string} state sending, waiting (it is tried again by itself) or failed
 * @property {?{status: number, code: string, message: string}} error
 * @property {boolean} begun whether a conversation may have been made for it
 */

/** A random key of 32 hexadecimal digits; pages without TLS have no crypto.randomUUID. */
export function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {object} app see ../../README.md
 * @returns {{send: function(object): string, again: function(string): void,
 *   drop: function(string): void, giveUp: function(string): void, start: function(): void}}
 */
export function createOutbox({ store, api, notify }, storage = storageOf()) {
  const running = new Map();
  const asking = new Set(); // keys of those that this tab, and no other one, sends now
  const told = new Set(); // keys of those that failed, of which somebody has heard

  function keep(turn) {
    store.send({ type: "turn/changed", turn });
    try {
      storage?.setItem(PREFIX + turn.key, JSON.stringify(turn));
    } catch {
      // larger than the storage (images): it is kept as long as this page is open
    }
  }

  /** Forget a turn: it is not wanted any more. */
  function drop(key) {
    storage?.removeItem(PREFIX + key);
    running.get(key)?.abort();
    running.delete(key);
    store.send({ type: "turn/dropped", key });
  }

  /** Send a turn; returns its key. */
  function send({ conversation, base, body }) {
    const user = nameOf(store);
    const key = randomKey();
    const turn = {
      key,
      user,
      place: conversation ?? `new-${key}`,
      conversation,
      base,
      body,
      state: "sending",
      error: null,
      begun: false,
    };
    keep(turn);
    run(turn);
    return key;
  }

  async function run(turn, left = false) {
    if (running.has(turn.key)) return;
    const end = new AbortController();
    running.set(turn.key, end);
    try {
      await alone(turn.key, end.signal, async () => {
        asking.add(turn.key);
        // Of one that an earlier page has left, another tab may have seen to meanwhile.
        const now = left ? read(turn.key) : turn;
        if (!now) store.send({ type: "turn/dropped", key: turn.key });
        else if (left && isOver(now)) store.send({ type: "turn/changed", turn: now });
        else await ask(now, end.signal);
      });
    } catch (error) {
      if (end.signal.aborted) return;
      change(turn.key, { state: "failed", error: plain(error) });
      tell(store.get().chat.turns[turn.key]);
    } finally {
      running.delete(turn.key);
      asking.delete(turn.key);
    }
  }

  // Who is somewhere else does not see that a question of his was not sent.
  function tell(turn) {
    const place = turn && (turn.conversation ?? turn.place);
    if (!turn || !isOver(turn) || told.has(turn.key) || store.get().route?.id === place) return;
    told.add(turn.key);
    notify?.(`A question was not sent: ${turn.error?.message}`, {
      bad: true,
      action: { label: "Show it", run: () => go(href("c", place)) },
    });
  }

  async function ask(turn, signal) {
    const onTry = (error) => change(turn.key, { state: "waiting", error: plain(error) });
    const conversation = turn.conversation ?? (await place(turn, signal, onTry));
    const body = { ...turn.body, conversation };
    const response = await api.postSafely("/v1/responses", body, turn.key, { signal, onTry });
    storage?.removeItem(PREFIX + turn.key);
    store.send({
      type: "turn/sent",
      key: turn.key,
      id: conversation,
      node: nodeOf(response, turn),
    });
  }

  // A conversation for the first question. One that an earlier try has made is found by the key.
  async function place(turn, signal, onTry) {
    let { begun } = turn;
    change(turn.key, { begun: true });
    for (let wait = 0.5; ; wait = Math.min(wait * 1.7, 10)) {
      try {
        const about =
          (begun && (await madeBefore(turn.key, signal))) || (await make(turn.key, signal));
        store.send({ type: "chat/conversation", id: about.id, changes: { state: "ready", about } });
        change(turn.key, { conversation: about.id });
        return about.id;
      } catch (error) {
        if (!error.unanswered) throw error;
        begun = true;
        onTry(error);
        await pause(error.retryAfter ?? wait, signal);
      }
    }
  }

  // The conversation that was made for a question that is given up goes, unless it has one by now.
  async function unmake({ key, user, conversation, begun }) {
    for (let wait = 0.5; nameOf(store) === user; wait = Math.min(wait * 1.7, 10)) {
      try {
        const id = conversation ?? (begun && (await madeBefore(key))?.id);
        const path = id && `/v1/conversations/${encodeURIComponent(id)}`;
        if (path && (await api.get(path)).entries === 0) await api.delete(path);
        return;
      } catch (error) {
        if (!error.unanswered) return; // it is gone, or not ours any more
        await pause(error.retryAfter ?? wait);
      }
    }
  }

  function make(key, signal) {
    return api.post("/v1/conversations", { metadata: { page_turn: key } }, { signal });
  }

  async function madeBefore(key, signal) {
    const { data } = await api.get("/v1/conversations", { query: { limit: 50 }, signal });
    return data.find(({ metadata }) => metadata?.page_turn === key) ?? null;
  }

  function change(key, changes) {
    const turn = store.get().chat.turns[key];
    if (turn) keep({ ...turn, ...changes });
  }

  function read(key) {
    return parsed(storage?.getItem(PREFIX + key), nameOf(store));
  }

  // What another tab does with a turn that it sends or drops.
  function follow(event) {
    const key = event.key?.startsWith(PREFIX) && event.key.slice(PREFIX.length);
    if (!key || (event.newValue && asking.has(key))) return;
    const turn = parsed(event.newValue, nameOf(store));
    if (!turn) return store.get().chat.turns[key] && drop(key);
    store.send({ type: "turn/changed", turn });
    // When that tab is closed, this one sends it. The lock is that one's first.
    const later = () => store.get().chat.turns[key] && run(turn, true);
    if (!isOver(turn) && navigator.locks) setTimeout(later, TAKEN);
  }

  return {
    send,

    /** Send a turn again that has failed, with changes to its body. */
    again(key, changes = {}) {
      const turn = store.get().chat.turns[key];
      if (!turn || running.has(key)) return;
      const used = turn.error?.code === "idempotency_key_in_use";
      if (used) drop(key);
      told.delete(key);
      const body = { ...turn.body, ...changes };
      const next = { ...turn, body, key: used ? randomKey() : key, state: "sending", error: null };
      keep(next);
      run(next);
    },

    drop,

    /** Forget a turn, and the conversation that was made for it alone. */
    giveUp(key) {
      const turn = store.get().chat.turns[key];
      drop(key);
      if (turn && turn.place !== turn.conversation) unmake(turn);
    },

    /** Take up what an earlier page of this user has left. */
    start() {
      addEventListener("storage", follow);
      for (let at = 0; at < (storage?.length ?? 0); at += 1) {
        const name = storage.key(at);
        const turn = name.startsWith(PREFIX) && read(name.slice(PREFIX.length));
        if (!turn || running.has(turn.key)) continue;
        store.send({ type: "turn/changed", turn });
        if (isOver(turn)) tell(turn);
        else run(turn, true);
      }
    },
  };
}

// Whether it waits for its user. One that was not let in is sent when he has signed in.
const isOver = (turn) => turn.state === "failed" && turn.error?.status !== 401;

// Two tabs do not send one turn at once. Where there are no locks, or a page may keep nothing and is
// given none, the key sees to that.
async function alone(key, signal, work) {
  let begun = false;
  const asked = navigator.locks?.request(PREFIX + key, { signal }, () => ((begun = true), work()));
  try {
    return await (asked ?? work());
  } catch (error) {
    if (begun || error.name !== "SecurityError") throw error;
    return work();
  }
}

function nodeOf(response, turn) {
  return {
    id: response.id,
    key: turn.key, // its element stays
    type: "response",
    previous: turn.base,
    created_at: response.created_at + 0.999, // of whole seconds: it is behind the others
    model: response.model,
    // It may be over: its first try was, or it was short. Its blocks come with the live stream, and
    // its end with them.
    status: "in_progress",
    input: turn.body.input,
    output: response.output,
    instructions: response.instructions,
  };
}

function plain(error) {
  const { status = 0, code = "", message = "" } = error ?? {};
  return { status, code, message: error instanceof ApiError ? message : String(error) };
}

const nameOf = (store) => store.get().session.user || "";

// A turn out of the storage; null: it is not there, not ours, or another user's.
function parsed(text, user) {
  try {
    const turn = JSON.parse(text);
    return turn?.user === user && turn.key && turn.body ? turn : null;
  } catch {
    return null;
  }
}

function storageOf() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}
