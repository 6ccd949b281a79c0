/** What one tab follows of the stream: says so to whoever holds it, and takes what is for this tab. */

import { follows } from "./state.js";

/**
 * @param {string} id of the tab
 * @param {Object} store
 * @param {function(Object): void} say to the leader
 */
export function createTab(id, store, say) {
  const watched = new Map(); // id -> how many parts of the page watch it
  const missed = new Set(); // answers of which something did not come; asked for again
  let reports = 0; // parts of the page that want the server's report

  function want() {
    const { answers } = store.get().live;
    const open = [...watched.keys()].filter((one) => !over(answers[one]));
    say({
      type: "want",
      tab: id,
      status: reports > 0,
      answers: open.map((one) => ({
        id: one,
        have: answers[one]?.blocks.length ?? 0,
        epoch: answers[one]?.epoch ?? null,
        missed: missed.has(one),
      })),
    });
  }

  function event(found) {
    const { status, answers, ...rest } = found;
    const mine = Object.entries(answers ?? {}).filter(([one]) => watched.has(one));
    const taken = mine.filter(([one, told]) => takes(one, told));
    if (taken.length) rest.answers = Object.fromEntries(taken);
    if (Object.keys(rest).length) store.send({ type: "live/event", event: rest });
    if (status) store.send({ type: "status", status });
  }

  // An open block that goes on where this tab has none: it came between two streams.
  function takes(one, told) {
    const answer = store.get().live.answers[one];
    if (over(answer)) return false;
    if (follows(answer, told)) {
      if (told.open?.html !== undefined || told.open?.text !== undefined || told.blocks) missed.delete(one);
      return true;
    }
    if (!missed.has(one)) {
      missed.add(one);
      queueMicrotask(want);
    }
    return false;
  }

  return {
    want,

    /** What the leader says. */
    take(message) {
      if (message.type === "event") event(message.event);
      else if (message.type === "leader") want();
      else if (message.type === "connection") {
        const { connection, retryAt } = message;
        if (connection === "signed-out") store.send({ type: "session/refused" });
        else store.send({ type: "live/connection", connection, retryAt });
      }
    },

    watch(one) {
      watched.set(one, (watched.get(one) ?? 0) + 1);
      if (watched.get(one) === 1) want();
      let watches = true;
      return () => {
        if (!watches) return;
        watches = false;
        const left = watched.get(one) - 1;
        if (left) return watched.set(one, left);
        watched.delete(one);
        missed.delete(one);
        want();
        store.send({ type: "live/unwatched", id: one });
      };
    },

    status(on) {
      reports = Math.max(0, reports + (on ? 1 : -1));
      if (reports === (on ? 1 : 0)) want();
    },
  };
}

function over(answer) {
  return Boolean(answer?.ended || answer?.error);
}
