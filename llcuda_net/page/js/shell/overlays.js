/** What lies above the page: menus at buttons, and dialogs. */

/** Buttons that have something open, and what closes it: `close(back)`, whether the focus goes back. */
export const opened = new Map();

/** Close all. */
export function closeAll() {
  for (const close of [...opened.values()]) close(false);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}
