/** What went wrong, in words of people, and what to do. Pure functions. */

/**
 * @typedef {object} Problem
 * @property {string} title what happened
 * @property {string} detail what the server said of it; never trusted
 * @property {boolean} again whether to try again may help
 */

const BY_CODE = {
  __proto__: null, // a code is whatever a server says
  rate_limit_exceeded: ["Too many requests wait, or your quota is used up", true],
  storage_quota_exceeded: ["Your space for files is full", false],
  too_many_streams: ["Too many answers of yours run at once", true],
  too_many_connections: ["The server has too many connections", true],
  model_not_found: ["This model is not there any more", true],
  context_length_exceeded: ["The conversation is longer than the model can read", true],
  upstream_unavailable: ["No model server is there to answer", true],
  upstream_error: ["The model server made an error", true],
  upstream_stalled: ["The model server stopped in the midst of the answer", true],
  interrupted: ["The answer could not go on as it began", true],
  timeout: ["It took too long", true],
  storage: ["The server cannot store it: its disk may be full", true],
  damaged: ["What is stored is damaged", false],
  shutting_down: ["The server is being shut down", true],
  lease_lost: ["This server was cut off from the others", true],
  conversation_locked: ["Another answer of this conversation still runs", true],
  conversation_not_found: ["This conversation is not there any more", false],
  previous_response_not_found: ["What this goes on from is not there any more", false],
  generation_not_found: ["This answer is not there any more", false],
  idempotency_key_in_use: ["This question was sent before in another form", true],
  request_too_large: ["The question is too large for the server", false],
  unsupported: ["That cannot be done here", true],
  invalid_api_key: ["You are not signed in any more", true],
};

const BY_STATUS = {
  0: ["The server cannot be reached", true],
  400: ["The server does not take this request", true],
  401: ["You are not signed in any more", true],
  403: ["You may not do that", false],
  404: ["This is not there any more", false],
  413: ["The question is too large for the server", false],
  429: ["Too many requests wait, or your quota is used up", true],
};

/**
 * An error of the API in words.
 * @param {{status?: number, code?: ?string, message?: string}} error
 * @returns {Problem}
 */
export function problemOf(error) {
  const found = BY_CODE[error?.code] ?? BY_STATUS[error?.status] ?? ["That did not work", true];
  return { title: found[0], detail: error?.message ?? "", again: found[1] };
}

/** Whether an answer still runs. */
export const runs = (node) => node.status === "queued" || node.status === "in_progress";

/**
 * How an answer ended, where that was not its own end.
 * @param {{status: string, error: ?object, incomplete_details: ?object}} node of a conversation
 * @returns {?Problem} null: nothing is to be said
 */
export function endingOf(node) {
  if (node.status === "incomplete") {
    return { title: "Cut off: the limit of tokens was reached", detail: "", again: false };
  }
  if (node.status === "cancelled")
    return { title: "Stopped before its end", detail: "", again: true };
  return node.status === "failed" ? problemOf(node.error) : null;
}
