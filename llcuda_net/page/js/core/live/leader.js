/**
 * The one that holds the stream of a profile: opens it for what the tabs want, tells them what
 * comes, and opens it again for ever when it is cut.
 *
 * Where the tabs want something else, the next stream is opened first. The old one is closed a little
 * after that has begun, since it may have something to tell yet: between them nothing is missed.
 */

import { openStream } from "./stream.js";
import { createWants } from "./wants.js";

/** Milliseconds: of silence after which a stream is dead, before another is opened for other wants. */
const SILENCE = 15000;
const GATHER = 40;
/** Milliseconds for which one that was replaced is heard: what it gathers, it tells every 100. */
const LINGER = 500;
/** Milliseconds between two tries: at first, and at most. */
const FIRST = 250;
const LONGEST = 5000;

/**
 * @param {function(Object): void} send tells all tabs
 * @returns {{take: function(Object): void, close: function(): void}} take: of what a tab says
 */
export function createLeader(send) {
  const wants = createWants();
  let stream = null; // the one that is open
  let next = null; // the one that is to take its place
  const leaving = new Set(); // those whose place was taken
  let tries = 0;
  let retryAt = 0; // in ms; 0: nothing is to be tried again
  let gathering = null;
  const timer = setInterval(look, 1000);
  let state = null;

  function told(connection) {
    state = { type: "connection", connection, retryAt: retryAt || null };
    send(state);
  }

  function open() {
    clearTimeout(gathering);
    gathering = null;
    retryAt = 0;
    next?.close();
    const opened = openStream(wants.query(), { event, end });
    next = opened;

    function event(found) {
      if (next === opened) {
        const seamless = stream !== null;
        if (seamless) leave(stream);
        stream = opened;
        next = null;
        tries = 0;
        // Of one that follows another at once, the list is new, but nothing was missed.
        if (found.snapshot && seamless) found = { ...found, snapshot: undefined, renewed: true };
        told("open");
      }
      if (leaving.has(opened)) {
        const { conversations, ended, deleted } = found;
        send({ type: "event", event: { conversations, ended, deleted } });
      }
      if (stream !== opened) return;
      wants.follow(found);
      if (!found.error) send({ type: "event", event: found });
    }

    function end({ status, retryAfter }) {
      if (next === opened) next = null;
      else if (stream === opened) stream = null;
      else return;
      if (status === 401) return told("signed-out");
      if (next) return; // it is being opened
      const wait = tries === 0 && status === 200 ? 0 : Math.min(FIRST * 2 ** tries, LONGEST);
      retryAt = Date.now() + (retryAfter ?? wait * (0.75 + Math.random() / 2));
      tries += 1;
      if (stream === null && tries > 1) told("lost");
      setTimeout(look, Math.max(0, retryAt - Date.now()) + 5);
    }
  }

  function leave(old) {
    leaving.add(old);
    setTimeout(() => (leaving.delete(old), old.close()), LINGER);
  }

  // Also called whenever a tab speaks: timers of a hidden tab may be late by a minute.
  function look() {
    const now = Date.now();
    if (retryAt && now >= retryAt) return open();
    const silent = stream && now - stream.heard() > SILENCE;
    if (silent) {
      stream.close();
      stream = null;
      if (!next) open();
    } else if (next && now - next.heard() > SILENCE) {
      open();
    }
  }

  function soon() {
    gathering ??= setTimeout(open, GATHER);
  }

  soon(); // the tabs say what they want meanwhile
  return {
    take(message) {
      if (message.type === "want") {
        const known = wants.tabs().includes(message.tab);
        const waits = stream === null && retryAt;
        if (wants.take(message.tab, message) && !waits) {
          if (document.hidden && stream) open(); // its timers come once a second
          else soon();
        }
        if (!known && state) send(state);
      } else if (message.type === "gone") {
        wants.drop(message.tab);
      } else if (message.type === "hurry") {
        if (stream === null && (retryAt || !next)) open();
      }
      look();
    },

    close() {
      clearInterval(timer);
      clearTimeout(gathering);
      retryAt = 0;
      stream?.close();
      next?.close();
      stream = next = null;
      for (const old of leaving) old.close();
    },
  };
}
