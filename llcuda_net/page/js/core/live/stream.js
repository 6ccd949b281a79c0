/** One response of GET /v1/events, read to its end. */

import { createParser } from "./parser.js";

/**
 * Open the stream.
 * @param {string} query of the path
 * @param {{event: function(Object): void, end: function(End): void}} told `event`: of each event;
 *   `end`: once, unless it was closed
 * @returns {{close: function(): void, heard: function(): number}} heard: when bytes came last, in ms
 *
 * @typedef {{status: number, retryAfter: ?number, reason: string}} End status 0: it was not reached,
 *   or cut; 200: the server ended it
 */
export function openStream(query, told) {
  const abort = new AbortController();
  let heard = Date.now();
  let over = false;

  function end(status, reason, retryAfter = null) {
    if (over) return;
    over = true;
    abort.abort();
    told.end({ status, reason, retryAfter });
  }

  async function read() {
    const response = await fetch(`/v1/events${query}`, {
      headers: { Accept: "text/event-stream" },
      cache: "no-store",
      signal: abort.signal,
    });
    heard = Date.now();
    if (!response.ok) {
      const after = Number(response.headers.get("retry-after"));
      return end(response.status, await reasonOf(response), after > 0 ? after * 1000 : null);
    }
    const parse = createParser((event) => over || told.event(event));
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return end(200, "");
      heard = Date.now();
      parse(decoder.decode(value, { stream: true }));
    }
  }

  read().catch((error) => end(0, String(error?.message ?? error)));
  return {
    close() {
      over = true;
      abort.abort();
    },
    heard: () => heard,
  };
}

async function reasonOf(response) {
  try {
    return String((await response.json()).error.message);
  } catch {
    return "";
  }
}
