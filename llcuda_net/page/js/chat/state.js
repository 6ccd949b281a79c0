/**
 * The slice `chat`: conversations that are open, turns that are being sent, models, answers that
 * are looked at by themselves. Pure.
 */

import { merged } from "./tree.js";

/**
 * @typedef {object} Conversation
 * @property {string} state loading, ready or failed
 * @property {?object} about as GET /v1/conversations/{id} has it
 * @property {object[]} nodes its responses, as far as they are known, the oldest first
 * @property {?string} leaf the end of the path that is shown; null: the newest response
 * @property {?string} older where the page before the known ones begins; null: there is none
 * @property {?Error} error why it is not here
 * @property {number} stale counts the times that the server told of a change
 * @property {number} gaps in the stream, since all that is known was read again
 */

const NEW = Object.freeze({
  state: "loading",
  about: null,
  nodes: [],
  leaf: null,
  older: null,
  error: null,
  stale: 0,
  gaps: 0,
});

const FIRST = Object.freeze({
  conversations: {},
  turns: {},
  answers: {},
  settings: {},
  places: {},
  models: null,
});

/** An answer that was looked at, and deleted. */
const GONE = Object.freeze({
  error: { status: 404, code: "generation_not_found", message: "" },
  nodes: [],
});

/** The slice `chat`. */
export function chatReducer(state = FIRST, action) {
  switch (action.type) {
    case "chat/conversation":
      return withConversation(state, action.id, (one) => ({ ...one, ...action.changes }));
    case "chat/nodes":
      return withConversation(state, action.id, (one) => ({
        ...one,
        ...action.changes,
        nodes: merged(one.nodes, action.nodes),
      }));
    case "chat/read":
      return withConversation(state, action.id, (one) => readAgain(one, action));
    case "chat/closed":
      return { ...state, conversations: without(state.conversations, action.id) };
    case "chat/answer":
      return { ...state, answers: put(state.answers, action.id, action.answer) };
    case "chat/settings":
      return { ...state, settings: put(state.settings, action.place, action.settings) };
    case "chat/models":
      return { ...state, models: action.models };
    case "turn/changed":
      return withTurn(state, action.turn);
    case "turn/dropped":
      return { ...state, turns: without(state.turns, action.key) };
    case "turn/sent":
      return sent(state, action);
    case "live/event":
      return told(state, action.event);
    default:
      return state;
  }
}

// What the server says has changed: which of the open conversations are not as they were.
function told(state, event) {
  const changed = event.conversations ?? {};
  const gone = new Set(event.deleted ?? []);
  let next = state;
  for (const id of gone) {
    if (own(state.answers, id)) next = { ...next, answers: put(next.answers, id, GONE) };
  }
  for (const [id, one] of Object.entries(state.conversations)) {
    const nodes = gone.size ? one.nodes.filter((node) => !gone.has(node.generation)) : one.nodes;
    const fewer = nodes.length < one.nodes.length;
    if (!event.snapshot && !fewer && !(id in changed) && !("" in changed)) continue;
    const stale = one.stale + 1;
    const gaps = one.gaps + (event.snapshot ? 1 : 0);
    next = withConversation(next, id, () => ({
      ...one,
      ...(fewer ? relinked(one, nodes) : {}),
      stale,
      gaps,
    }));
  }
  return next;
}

// All that was known is known anew, but for what came meanwhile; `gone` is not there any more.
function readAgain(one, { nodes, gone, gaps, changes }) {
  const left = one.nodes.filter((node) => !gone.includes(node.id));
  const linked = relinked(one, left);
  return {
    ...one,
    ...linked,
    ...changes,
    nodes: merged(linked.nodes, nodes),
    gaps: one.gaps - gaps,
  };
}

// What stood behind a response that is gone stands behind what that stood behind; so does who reads.
function relinked({ nodes: before, leaf, older }, nodes) {
  const old = new Map(before.map((node) => [node.id, node]));
  const there = new Set(nodes.map((node) => node.id));
  const left = (id) => {
    while (id && !there.has(id) && old.has(id)) id = old.get(id).previous;
    return id;
  };
  const at = left(leaf);
  // A page begins behind what is there.
  const last = before.findIndex(({ id }) => id === older);
  const behind = before.slice(last).find(({ id }) => there.has(id))?.id ?? null;
  return {
    older: last < 0 || there.has(older) ? older : behind,
    leaf: there.has(at) ? at : null,
    nodes: nodes.map((node) => {
      const previous = left(node.previous);
      return previous === node.previous ? node : { ...node, previous };
    }),
  };
}

// Where the first question of a new conversation was asked, the conversation is found from then on.
function withTurn(state, turn) {
  const turns = put(state.turns, turn.key, turn);
  if (!turn.conversation || turn.place === turn.conversation) return { ...state, turns };
  const places = put(state.places, turn.place, turn.conversation);
  const settings = put(state.settings, turn.conversation, own(state.settings, turn.place));
  return { ...state, turns, places, settings };
}

function sent(state, { key, id, node }) {
  // The model has become the answer's own; what else was set here (a seed) goes on to hold.
  const { model, ...kept } = own(state.settings, id) ?? {};
  const left = {
    ...state,
    settings: put(state.settings, id, kept),
    turns: without(state.turns, key),
  };
  // What was read of it meanwhile is newer, and has its blocks.
  return withConversation(left, id, (one) => ({
    ...one,
    nodes: merged([node], one.nodes),
    leaf: node.id,
  }));
}

function withConversation(state, id, change) {
  const one = change(own(state.conversations, id) ?? NEW);
  return { ...state, conversations: put(state.conversations, id, one) };
}

// Ids come out of addresses: one may be a name that every object has.
const own = (map, key) => (Object.hasOwn(map, key) ? map[key] : undefined);
const put = (map, key, value) => ({ ...map, [key]: value });

function without(map, key) {
  const { [key]: _, ...rest } = map;
  return rest;
}

/** The conversation of an id, as far as it is known. */
export const conversationOf = (state, id) => own(state.chat.conversations, id) ?? NEW;

/** The answer that is looked at by itself. */
export const answerOf = (state, id) => own(state.chat.answers, id);

/** The turn that is being sent in a place: a conversation, or a new one. */
export const turnIn = (state, place) =>
  Object.values(state.chat.turns).find((turn) => (turn.conversation ?? turn.place) === place) ??
  null;

/** The id of a response's generation. */
export const generationOf = (id) => id.replace(/^resp_/u, "");

/** A node of whatever open conversation. */
export function conversationNode(state, id) {
  for (const { nodes } of Object.values(state.chat.conversations)) {
    const found = nodes.find((node) => node.id === id);
    if (found) return found;
  }
  return null;
}
