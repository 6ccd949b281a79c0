/**
 * What is being written, by conversation: the text survives a reload of this tab, images do not.
 */

const PREFIX = "llcuda.draft.";
const OWNER = "llcuda.draft-owner";
const images = new Map();

/** Forget what another user wrote in this tab. */
export function ownDrafts(user) {
  try {
    if (sessionStorage.getItem(OWNER) === user) return;
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
    }
    sessionStorage.setItem(OWNER, user);
  } catch {
    // no storage: there is nothing to forget
  }
}

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

/** The images of a draft. */
export const draftImages = (place) => images.get(place) ?? [];

/** Keep the images of a draft. */
export function keepImages(place, list) {
  if (list.length) images.set(place, list);
  else images.delete(place);
}

/** What was written in one place is written in another, before what is there. */
export function moveDraft(from, to) {
  keepDraft(to, [draftOf(from), draftOf(to)].filter(Boolean).join("\n\n"));
  keepImages(to, [...draftImages(from), ...draftImages(to)]);
  keepDraft(from, "");
  keepImages(from, []);
}
