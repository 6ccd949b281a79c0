/** A generation, of whatever API, as entries of a conversation. Pure. */

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
  const asked = messages ?? [
    { role: "user", content: typeof prompt === "string" ? prompt : "(a prompt of tokens)" },
  ];
  const items = asked.map(itemOf);
  const first = 1 + items.findLastIndex((item) => item.role === "assistant");
  const system = asked.find(({ role }) => role === "system");
  const before = items.slice(0, first).map((item, at) => ({
    id: `${about.id}-${at}`,
    type: "item",
    role: item.role,
    status: "completed",
    input: item.role === "assistant" ? [] : [item],
    text: item.text,
    blocks: item.role === "assistant" ? [{ n: 0, channel: "plain", text: item.text }] : undefined,
  }));
  return [
    ...before,
    {
      id: `resp_${about.id}`,
      type: "response",
      generation: about.id,
      previous: null,
      created_at: about.created,
      model: about.model,
      status: about.finish_reason === "length" ? "incomplete" : (STATUS[about.state] ?? "failed"),
      error: about.error,
      input: items.slice(first),
      text: about.text,
      blocks: about.blocks,
      tokens: about.tokens,
      usage: usageOf(about.usage),
      timings: about.timings,
      tokens_per_second: rateOf(about),
      instructions: typeof system?.content === "string" ? system.content : null,
      sampling: params,
      max_output_tokens: null,
      logprobs: params.n_probs ?? null,
      seed: about.seed,
    },
  ];
}

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

function itemOf({ role, content, tool_calls: calls, tool_call_id: id }) {
  if (role === "tool") return { type: "function_call_output", call_id: id, output: content };
  const parts = Array.isArray(content) ? content : [{ type: "text", text: content ?? "" }];
  const called = (calls ?? []).map(({ function: f }) => `${f?.name}(${f?.arguments})`);
  const text = [...parts.map((part) => part.text ?? ""), ...called].filter(Boolean).join("\n");
  return { type: "message", role, content: parts, text };
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
