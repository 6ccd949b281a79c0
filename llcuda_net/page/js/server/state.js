/** The slice `server`: the last status of the server, and its last two minutes. */

/** Samples that are kept: one per second. */
export const KEPT = 120;

const FIRST = Object.freeze({ status: null, samples: Object.freeze([]), error: "" });

/**
 * `status` is the document of GET /v1/status, also as the live stream has it; `samples` are those of
 * its history, the oldest first; `error` says why there is none.
 */
export function serverReducer(state = FIRST, action) {
  if (action.type === "status") {
    const { history, ...status } = action.status;
    const more = history?.samples ?? (status.sample ? [status.sample] : []);
    const samples = merged(state.samples, more);
    return { status: newer(state.status, status), samples, error: "" };
  }
  if (action.type === "server/failed") return { ...state, error: action.message };
  // Somebody else may have signed in: what the last one saw is not for them.
  if (action.type === "session/required") return FIRST;
  return state;
}

function newer(last, next) {
  return last && last.at > next.at && last.server.pid === next.server.pid ? last : next;
}

/** All samples, each moment once; those of the last two minutes. */
export function merged(samples, more) {
  const last = samples.at(-1)?.at ?? -Infinity;
  if (more.length === 0 || (more.length === 1 && more[0].at === last)) return samples;
  let all = [...samples, ...more];
  if (more[0].at <= last) {
    all = [...new Map(all.map((one) => [one.at, one])).values()].sort((a, b) => a.at - b.at);
  }
  const from = all.at(-1).at - KEPT;
  return all.filter((one) => one.at >= from).slice(-KEPT);
}
