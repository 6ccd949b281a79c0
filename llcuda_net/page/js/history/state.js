/** The slice `history`: two lists, the filters, and what a search has found. */

import {
  cut,
  emptyList,
  indexOf,
  slice,
  withChange,
  withEntry,
  withHead,
  withPage,
  withSeen,
  withUnpinned,
  without,
} from "./list.js";

const NO_FILTER = { state: "", model: "", since: "" };

const first = () => ({
  tab: "conversations",
  filter: NO_FILTER,
  conversations: emptyList({}),
  answers: emptyList({}),
  changed: [], // conversations that were changed, and are to be fetched
  search: { text: "", parts: {} },
});

/** The reducer; `live/event` says what became of answers and conversations. */
export function historyReducer(state = first(), action) {
  const of = (change) => {
    const list = state[action.list];
    if (action.key !== undefined && action.key !== list.key) return state; // it is late
    const next = change(list);
    return next === list ? state : { ...state, [action.list]: next };
  };
  switch (action.type) {
    case "history/tab":
      return { ...state, tab: action.tab };
    case "history/filter":
      return { ...state, filter: { ...state.filter, ...action.filter }, answers: emptyList({}) };
    case "history/page":
      return of((list) => withPage(list, action.number, action.after, action.entries, action.more));
    case "history/head":
      return of((list) => withHead(list, action.entries, action.more));
    case "history/lost":
      return of((list) => cut(list, action.number));
    case "history/failed":
      return of((list) => ({ ...list, error: action.error }));
    case "history/seen":
      return of((list) => withSeen(list, action.first, action.end));
    case "history/changed":
      return of((list) => changed(list, action));
    case "history/removed":
      return of((list) => without(list, new Set(action.ids)));
    case "history/fetched":
      return { ...state, changed: state.changed.filter((id) => !action.ids.includes(id)) };
    case "history/search":
      return {
        ...state,
        search: {
          ...state.search,
          text: action.text,
          parts: action.text ? state.search.parts : {},
        },
      };
    case "history/found":
      if (action.text !== state.search.text) return state;
      return {
        ...state,
        search: { ...state.search, parts: { ...state.search.parts, [action.part]: action.found } },
      };
    case "history/forgotten": // of all results of a search
      return {
        ...state,
        search: { ...state.search, parts: withoutHit(state.search.parts, action.id) },
      };
    case "live/event":
      return followed(state, action.event);
    case "session/required":
      return first(); // somebody else may sign in
    default:
      return state;
  }
}

function changed(list, { id, changes }) {
  const [before] = slice(list, indexOf(list, id), indexOf(list, id) + 1);
  const next = withChange(list, id, changes);
  return before?.pinned && changes.pinned === false ? withUnpinned(next, id) : next;
}

function withoutHit(parts, id) {
  return Object.fromEntries(
    Object.entries(parts).map(([name, part]) => [
      name,
      { ...part, hits: part.hits.filter((hit) => hit.id !== id && hit.conversation !== id) },
    ]),
  );
}

function followed(state, { snapshot, runs = [], ended = [], deleted = [], conversations = {} }) {
  let { answers, conversations: list } = state;
  for (const entry of [...runs, ...ended].map(entryOf)) {
    answers = holds(state.filter, entry)
      ? withEntry(answers, entry)
      : without(answers, new Set([entry.id]));
  }
  if (deleted.length) answers = without(answers, new Set(deleted));
  const changes = Object.entries(conversations);
  const gone = changes.filter(([, what]) => what === "deleted").map(([id]) => id);
  if (gone.length) list = without(list, new Set(gone));
  // After a gap in the stream; what could not be read may be read now.
  if (snapshot) {
    answers = { ...answers, error: null, stale: answers.stale + 1 };
    list = { ...list, error: null };
  }
  if (snapshot || changes.length > gone.length) list = { ...list, stale: list.stale + 1 };
  const changed = changes.filter(([id, what]) => what === "changed" && id).map(([id]) => id);
  if (answers === state.answers && list === state.conversations) return state;
  return {
    ...state,
    answers,
    conversations: list,
    changed: [...new Set([...state.changed, ...changed])],
  };
}

/** An entry of the list, of a run or an end; what is absent stays as it was. */
function entryOf({ id, state, created, model, preview, text, tokens, conversation, owner }) {
  const given = { id, state, created, model, preview, text, tokens, conversation, owner };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Whether the filters let an entry through; a new one is never too old. */
function holds({ state, model }, entry) {
  return (!state || state.split(",").includes(entry.state)) && (!model || entry.model === model);
}
