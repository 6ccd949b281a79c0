/** A generation, of whatever API, as entries of a conversation. Pure. */

import { parted, textOf } from "./turn.js";

const STATUS = {
  queued: "queued",
  running: "in_progress",
  done: "completed",
  cancelled: "cancelled",
};

/**
 * The entries of one generation: earlier turns as plain ones, then its question and answer.
 * @param {object} about as GET /v1/generations/{id} has it, with render=html
 * @returns {object[]}
 */
export function nodesOfGeneration(about) {
  const { messages, prompt, params = {} } = about.request ?? {};
  const raw = typeof prompt === "string" ? prompt : "(a prompt of tokens)";
  const system = messages?.find(({ role }) => role === "system");
  return expanded({
    id: `resp_${about.id}`,
    type: "response",
    generation: about.id,
    previous: null,
    created_at: about.created,
    model: about.model,
    status: about.finish_reason === "length" ? "incomplete" : (STATUS[about.state] ?? "failed"),
    error: about.error,
    input: (messages ?? [{ role: "user", content: raw }]).flatMap(itemsOf),
    text: about.text,
    blocks: about.blocks,
    tokens: about.tokens,
    usage: usageOf(about.usage),
    timings: about.timings,
    tokens_per_second: rateOf(about),
    instructions: typeof system?.content === "string" ? system.content : null,
    sampling: params,
    max_output_tokens: null,
    logprobs: params.n_probs || null,
    seed: about.seed,
  });
}

/**
 * A node as the entries that are shown of it: what had been said before it, each by itself.
 * @param {object} node
 * @returns {object[]}
 */
export function expanded(node) {
  if (!split.has(node)) split.set(node, parts(node));
  return split.get(node);
}

const split = new WeakMap(); // a node is shown often

function parts(node) {
  const { before, asked } = parted(node.input);
  if (before.length === 0 || node.type === "item") return [node];
  const plain = before.map((item, at) => {
    const entry = { id: `${node.id}-${at}`, type: "item", role: item.role, input: [item] };
    if (!isSaid(item)) return entry;
    const text = wordsOf(item);
    return { ...entry, role: "assistant", text, blocks: [{ n: 0, channel: "plain", text }] };
  });
  return [...plain, { ...node, asked }];
}

const isSaid = (item) => item.role === "assistant" || item.type === "function_call";

const wordsOf = (item) =>
  item.type === "function_call" ? `${item.name}(${item.arguments})` : textOf(item.content);

/**
 * The messages of a generation as items, to ask them again in a conversation.
 * @param {object} about
 * @returns {?object[]} null: it had a raw prompt, tools or a prefix, which a conversation has not
 */
export function itemsAgain(about) {
  const messages = about.request?.messages;
  const plain = ({ role, content, tool_calls: calls }) =>
    /^(system|user|assistant)$/u.test(role) && content && !calls;
  if (!messages?.every(plain) || messages.at(-1)?.role !== "user") return null;
  return messages.map(({ role, content }) => ({
    type: "message",
    role,
    content: typeof content === "string" ? content : content.map(partOf),
  }));
}

function partOf(part) {
  const url = part.image_url?.url ?? part.image_url;
  return url
    ? { type: "input_image", image_url: url }
    : { type: "input_text", text: part.text ?? "" };
}

// A message of a chat as items of a response.
function itemsOf({ role, content, tool_calls: calls, tool_call_id: id }) {
  if (role === "tool") return [{ type: "function_call_output", call_id: id, output: content }];
  const called = (calls ?? []).map((call) => ({ type: "function_call", ...call.function }));
  return content ? [{ type: "message", role, content }, ...called] : called;
}

function usageOf(usage) {
  if (!usage) return null;
  return {
    input_tokens: usage.prompt_tokens,
    input_tokens_details: usage.prompt_tokens_details,
    output_tokens: usage.completion_tokens,
  };
}

// The first token comes with the prompt: the others are what the generation took.
function rateOf({ usage, timings }) {
  const tokens = usage?.completion_tokens ?? 0;
  return tokens > 1 && timings?.generation > 0 ? ((tokens - 1) * 1000) / timings.generation : null;
}
