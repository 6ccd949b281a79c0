// What is being written, by conversation: it survives a reload of this tab.

const PREFIX = "llcuda.draft.";

/**
 * What was written in a place.
 * @param {string} place a conversation's id, or "new"
 * @returns {string}
 */
export function draftOf(place) {
  try {
    return sessionStorage.getItem(PREFIX + place) ?? "";
  } catch {
    return "";
  }
}

/**
 * Keep what is written in a place; an empty text forgets it.
 * @param {string} place
 * @param {string} text
 */
export function keepDraft(place, text) {
  try {
    if (text) sessionStorage.setItem(PREFIX + place, text);
    else sessionStorage.removeItem(PREFIX + place);
  } catch {
    // no storage: it lasts as long as the page
  }
}
