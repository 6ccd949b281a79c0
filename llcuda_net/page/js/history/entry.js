/** Entries of the lists: conversations, and answers of any API. */

import { href } from "../core/router.js";

/** The address of an entry: of a conversation; of an answer in its conversation, or alone. */
export function addressOf(entry) {
  if (isConversation(entry)) return href("c", entry.id);
  if (entry.conversation) return href("c", entry.conversation, { answer: `resp_${entry.id}` });
  return href("a", entry.id);
}

/** Whether an entry is a conversation, and not an answer. */
export const isConversation = (entry) => entry.id.startsWith("conv_");

/** What an entry is called. */
export function titleOf(entry) {
  const fallback = isConversation(entry) ? "Empty conversation" : "Without words";
  return entry.title || entry.preview || entry.text || fallback;
}

/** When it was last used, in seconds since 1970. */
export const timeOf = (entry) => entry.updated ?? entry.updated_at ?? entry.created;
