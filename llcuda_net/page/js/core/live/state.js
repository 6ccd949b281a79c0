/** The slice `live`: what runs, what has ended, and the answers that this tab follows, in blocks. */

/** Ends that are remembered. */
const MOST_ENDED = 50;

const FIRST = { connection: "starting", retryAt: null, runs: {}, more: 0, ended: [], answers: {} };
const NOTHING = { blocks: [], open: null, epoch: null, ended: null, error: null };

/** The reducers of this part. */
export const liveReducers = { live: reduce };

function reduce(state = FIRST, action) {
  switch (action.type) {
    case "live/connection":
      return { ...state, connection: action.connection, retryAt: action.retryAt };
    case "live/event":
      return withEvent(state, action.event);
    case "live/unwatched":
      return { ...state, answers: without(state.answers, [action.id]) };
    case "session/required":
      return { ...FIRST, connection: state.connection }; // somebody else may sign in
    default:
      return state;
  }
}

function withEvent(state, event) {
  const { snapshot, renewed, runs = [], ended = [], deleted = [], more } = event;
  const next = { ...state };
  if (snapshot || renewed || runs.length || ended.length || deleted.length) {
    const known = snapshot || renewed ? {} : state.runs;
    const added = { ...known, ...Object.fromEntries(runs.map((run) => [run.id, run])) };
    next.runs = without(added, [...ended.map(({ id }) => id), ...deleted]);
  }
  if (more !== undefined || snapshot || renewed) next.more = more ?? 0;
  // Two streams, of which one takes the other's place, may both tell of an end.
  const fresh = ended.filter(({ id }) => !state.ended.some((one) => one.id === id));
  if (fresh.length) next.ended = [...state.ended, ...fresh].slice(-MOST_ENDED);
  if (event.answers) {
    next.answers = { ...state.answers };
    for (const [id, told] of Object.entries(event.answers)) {
      next.answers[id] = grown(state.answers[id] ?? NOTHING, told);
    }
  }
  return next;
}

/**
 * An answer after an event.
 * @param {typeof NOTHING} answer
 * @param {Object} told as the event has it
 */
export function grown(answer, told) {
  const next = told.reset ? { ...NOTHING } : { ...answer };
  if (told.epoch !== undefined) next.epoch = told.epoch;
  if (told.error) next.error = told.error;
  const fresh = (told.blocks ?? []).filter(({ n }) => n >= next.blocks.length);
  if (fresh.length) next.blocks = [...next.blocks, ...fresh];
  if (next.open && next.open.n < next.blocks.length) next.open = null;
  if (told.open === null) next.open = null;
  else if (told.open?.more === undefined) next.open = told.open ?? next.open;
  else if (next.open) next.open = { ...next.open, more: [...(next.open.more ?? []), told.open.more] };
  if (told.ended) Object.assign(next, { ended: told.ended, open: null });
  return next;
}

/**
 * Whether an answer can take what an event says of it; else something was missed.
 * @param {?typeof NOTHING} answer
 * @param {Object} told
 */
export function follows(answer, told) {
  if (told.error) return true;
  const have = told.reset ? 0 : (answer?.blocks.length ?? 0);
  const first = told.blocks?.[0]?.n ?? have;
  if (first > have) return false;
  if (told.open?.more === undefined) return true;
  return answer?.open?.n === told.open.n;
}

function without(entries, ids) {
  if (!ids.some((id) => id in entries)) return entries;
  const left = { ...entries };
  for (const id of ids) delete left[id];
  return left;
}
