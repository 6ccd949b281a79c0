/**
 * Which model and settings the next answer has: what was chosen here, else those of the last answer
 * of the path, else those of new chats. Pure.
 */

import { known } from "./sampling.js";

/**
 * @param {object} state
 * @param {string} place
 * @param {object[]} path
 * @returns {{model: string, instructions: string, sampling: object}}
 */
export function settingsOf(state, place, path) {
  const last = path.findLast((node) => node.type !== "item" && !node.turn);
  const chosen = state.chat.settings[place] ?? {};
  return { ...(last ? settingsOfNode(last) : settingsOfFields(state.prefs.chat)), ...chosen };
}

/** Those that an answer had. */
export function settingsOfNode(node) {
  return {
    model: node.model ?? "",
    instructions: node.instructions ?? "",
    sampling: known({ ...node.sampling, max_output_tokens: node.max_output_tokens }),
  };
}

/** Those of new chats, or of the body of a request. */
export function settingsOfFields(fields) {
  return {
    model: fields?.model ?? "",
    instructions: fields?.instructions ?? "",
    sampling: known(fields),
  };
}
