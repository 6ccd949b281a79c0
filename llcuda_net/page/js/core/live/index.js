/**
 * The live stream: one for all tabs of a browser's profile.
 *
 * A browser has six connections to a server over HTTP/1.1, for all of its tabs. So one of them, the
 * leader, holds the stream, and tells the others what comes. Who leads is who has a lock (Web
 * Locks): when that tab closes, the browser gives the lock to the next one at once. A tab that is
 * seen also asks the leader each second whether it is there, since one that sleeps (as on a phone)
 * keeps its lock, and takes the lock from one that does not answer.
 *
 * Where a browser gives no Web Locks, as on plain HTTP from another machine, or where pages may keep
 * nothing, each tab is its own.
 */

import { createLeader } from "./leader.js";
import { createTab } from "./tab.js";

export { liveReducers } from "./state.js";

const NAME = "llcuda-live";
/** Milliseconds between two questions to the leader, and how many of them it may leave open. */
const ASK_EVERY = 1000;
const PATIENCE = 2;

/**
 * Begin; called once somebody is known.
 * @param {{store: Object}} app
 * @returns {{watch: function(string): function(): void, status: function(boolean): void,
 *   close: function(): void}} `watch(id)` follows an answer in `state.live.answers[id]`, until what
 *   it returns is called; `status(true)` asks for the server's report, as long as it is not called
 *   with false as often
 */
export function startLive({ store }) {
  const me = crypto.randomUUID?.() ?? String(Math.random());
  const shared = Boolean(navigator.locks && globalThis.BroadcastChannel);
  const end = new AbortController();
  let channel = null;
  let leader = null; // while this tab leads
  let candidacy = null; // an AbortController: it leads, or waits for the lead
  let leave = () => {}; // gives up the locks of this tab
  let open = 0; // questions that the leader has not answered

  // To all tabs, this one among them.
  function send(message) {
    channel?.postMessage(message);
    tab.take(message);
  }

  // To the leader, wherever it is.
  function say(message) {
    if (leader) leader.take(message);
    else channel?.postMessage(message);
  }

  const tab = createTab(me, store, say);

  function hear(message) {
    if (message.tab === undefined) {
      open = 0;
      tab.take(message);
    } else if (leader) {
      outlive(message.tab);
      if (message.type === "ask") channel.postMessage({ type: "here" });
      leader.take(message);
    }
  }

  function lead() {
    leader = createLeader(send);
    send({ type: "leader" });
  }

  function follow() {
    leader?.close();
    leader = null;
  }

  function elect(steal = false) {
    candidacy?.abort();
    const mine = new AbortController();
    candidacy = mine;
    const held = new Promise((done) => mine.signal.addEventListener("abort", done));
    const options = steal ? { steal } : { signal: mine.signal };
    navigator.locks
      .request(NAME, options, () => {
        if (candidacy === mine) lead();
        return candidacy === mine ? held : undefined;
      })
      .catch(() => {}) // it was taken from this tab, which slept
      .then(() => {
        if (candidacy !== mine) return;
        follow();
        elect();
      });
  }

  // A tab has a lock of its own: when the leader gets that, the tab is no more, however it ended.
  const known = new Set();
  function outlive(other) {
    if (known.has(other)) return;
    known.add(other);
    navigator.locks
      .request(`${NAME}-${other}`, { signal: end.signal }, () => {
        known.delete(other);
        leader?.take({ type: "gone", tab: other });
      })
      .catch(() => known.delete(other));
  }

  function ask() {
    if (document.visibilityState !== "visible" || leader || !channel) {
      open = 0;
    } else if (open >= PATIENCE) {
      open = 0;
      elect(true);
    } else {
      open += 1;
      say({ type: "ask", tab: me });
    }
  }

  function hurry() {
    if (document.visibilityState === "visible") say({ type: "hurry", tab: me });
  }

  function start() {
    if (!shared) return lead();
    channel = new BroadcastChannel(NAME);
    channel.addEventListener("message", ({ data }) => hear(data));
    const gone = new Promise((done) => (leave = done));
    navigator.locks
      .request(`${NAME}-${me}`, () => {
        elect();
        tab.want();
        return gone;
      })
      .catch((error) => error.name === "SecurityError" && alone());
  }

  // A browser that lets pages keep nothing gives no locks, either.
  function alone() {
    channel?.close();
    channel = null;
    lead();
  }

  function stop() {
    say({ type: "gone", tab: me });
    const mine = candidacy;
    candidacy = null;
    mine?.abort();
    leave();
    follow();
    channel?.close();
    channel = null;
  }

  start();
  const { signal } = end;
  const timer = setInterval(ask, ASK_EVERY);
  document.addEventListener("visibilitychange", () => (hurry(), ask()), { signal });
  addEventListener("online", hurry, { signal });
  addEventListener("pagehide", stop, { signal });
  addEventListener("pageshow", ({ persisted }) => persisted && start(), { signal });
  store.watch(
    ({ session }) => session?.state === "known" && session.confirmed,
    (confirmed) => confirmed && hurry(),
    signal,
  );

  return {
    watch: tab.watch,
    status: tab.status,
    close() {
      stop();
      clearInterval(timer);
      end.abort();
    },
  };
}
