/** A turn: the request that a question becomes. Pure functions. */

/** How many alternatives are asked for with each token. */
export const ALTERNATIVES = 3;

const LOGPROBS = "message.output_text.logprobs";

/**
 * The body of POST /v1/responses.
 * @param {object} turn
 * @param {string} turn.conversation
 * @param {string} [turn.text] the question
 * @param {{url: string}[]} [turn.images] as data: URLs
 * @param {?object[]} [turn.input] items in place of text and images
 * @param {?string} [turn.model]
 * @param {?string} [turn.previous] the response to go on from
 * @param {?string} [turn.insteadOf] the response to stand beside
 * @param {string} [turn.instructions]
 * @param {object} [turn.sampling] as in sampling.js
 * @param {boolean} [turn.certainty] ask for the certainty of each token
 * @returns {object}
 */
export function bodyOf(turn) {
  const body = {
    ...turn.sampling,
    conversation: turn.conversation,
    background: true,
    store: true,
    input: turn.input ?? inputOf(turn.text ?? "", turn.images ?? []),
  };
  if (turn.model) body.model = turn.model;
  if (turn.insteadOf) body.instead_of = turn.insteadOf;
  else if (turn.previous) body.previous_response_id = turn.previous;
  if (turn.instructions) body.instructions = turn.instructions;
  if (turn.certainty) {
    body.include = [LOGPROBS];
    body.top_logprobs = ALTERNATIVES;
  }
  return body;
}

/**
 * A question as items of a response's input.
 * @param {string} text
 * @param {{url: string}[]} images
 * @returns {object[]}
 */
export function inputOf(text, images) {
  const content = images.map(({ url }) => ({ type: "input_image", image_url: url }));
  if (text !== "" || content.length === 0) content.push({ type: "input_text", text });
  return [{ type: "message", role: "user", content }];
}

/**
 * The items of a question in two: what had been said before, as of a chat that was begun elsewhere,
 * and what was asked.
 * @param {?object[]} items
 * @returns {{before: object[], asked: object[]}}
 */
export function parted(items) {
  const said = (item) => item.role === "assistant" || item.type === "function_call";
  const first = 1 + (items ?? []).findLastIndex(said);
  return { before: (items ?? []).slice(0, first), asked: (items ?? []).slice(first) };
}

/**
 * What people see of a question's items: its words and images, and what else there was.
 * @param {?object[]} items
 * @returns {{text: string, images: string[], results: object[], system: string[]}}
 *     images: data: URLs only; results: outputs of tools
 */
export function questionOf(items) {
  const found = { text: [], images: [], results: [], system: [] };
  for (const item of items ?? []) {
    if (item.type?.endsWith("_call_output")) {
      found.results.push({ id: item.call_id, output: textOf(item.output) });
    } else if ((item.type ?? "message") === "message") {
      const mine = item.role === "user" ? found.text : found.system;
      if (item.role !== "assistant") mine.push(textOf(item.content));
      for (const part of Array.isArray(item.content) ? item.content : []) {
        const url = typeof part.image_url === "string" ? part.image_url : part.image_url?.url;
        if (isImage(url)) found.images.push(url);
      }
    }
  }
  return { ...found, text: found.text.filter(Boolean).join("\n\n") };
}

/**
 * The text of a message's content, of whatever API.
 * @param {*} content a text, or parts
 * @returns {string}
 */
export function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content == null ? "" : JSON.stringify(content);
  return content
    .map((part) => part?.text ?? part?.refusal ?? "")
    .filter(Boolean)
    .join("\n");
}

/**
 * Whether it may be shown as an image: a data: URL of a kind that cannot have a script.
 * @param {*} url
 * @returns {boolean}
 */
export function isImage(url) {
  return typeof url === "string" && /^data:image\/(png|jpeg|gif|webp|bmp);base64,/i.test(url);
}

/**
 * The items of an earlier question, to ask them again.
 * @param {object[]} items
 * @returns {object[]}
 */
export const again = (items) => items.map(({ id, status, ...item }) => item);

/**
 * A turn that is being sent as the entry that it will become.
 * @param {object} turn of the outbox
 * @returns {object}
 */
export function nodeOfTurn(turn) {
  const { key, body } = turn;
  return { id: key, key, input: body.input, status: "sending", turn };
}
