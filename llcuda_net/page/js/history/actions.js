/** What can be done with an entry: open, rename, pin, export, delete. */

import { h } from "../core/dom.js";
import { go } from "../core/router.js";
import { confirmed } from "../shell/confirm.js";
import { openMenu } from "../shell/menu.js";
import { addressOf, isConversation, titleOf } from "./entry.js";

const LONGEST_TITLE = 256;

/**
 * Open the menu of an entry, or begin one of its actions.
 * @param {Element} row the entry's; its last child is the button of the menu
 * @param {string} [action] "rename" or "delete": without the menu
 */
export function openActions(app, row, entry, action) {
  if (!entry) return;
  const path = isConversation(entry)
    ? `/v1/conversations/${entry.id}`
    : `/v1/generations/${entry.id}`;
  const run = {
    rename: () => isConversation(entry) && rename(app, row, entry, path),
    delete: () => remove(app, row, entry, path),
  };
  if (action) return run[action]();
  const conversation = isConversation(entry);
  openMenu(
    row.lastChild,
    [
      { label: "Open", icon: "right", run: () => go(addressOf(entry)) },
      conversation && { label: "Rename", icon: "edit", run: run.rename },
      conversation && {
        label: entry.pinned ? "Unpin" : "Pin",
        icon: "pin",
        run: () => change(app, entry, path, { pinned: !entry.pinned }),
      },
      { label: "Export as Markdown", icon: "download", run: () => save(path, "markdown") },
      { label: "Export as JSON", icon: "download", run: () => save(path, "json") },
      { label: "Delete", icon: "trash", danger: true, run: run.delete },
    ].filter(Boolean),
  );
}

async function change(app, entry, path, changes) {
  try {
    const { title, pinned } = await app.api.post(path, changes);
    app.store.send({
      type: "history/changed",
      list: "conversations",
      id: entry.id,
      changes: { title, pinned },
    });
  } catch (error) {
    // What was written is not lost.
    const words = changes.title ? `It was not renamed to “${changes.title}”` : "It was not changed";
    app.notify(`${words}: ${error.message}`, {
      bad: true,
      action: { label: "Try again", run: () => change(app, entry, path, changes) },
    });
  }
}

function rename(app, row, entry, path) {
  const link = row.firstChild;
  const before = entry.title ?? titleOf(entry);
  const input = h("input", {
    "aria-label": "Title",
    value: before,
    maxlength: LONGEST_TITLE,
  });
  let over = false;
  const end = (keep) => {
    if (over) return;
    over = true;
    const title = input.value.trim();
    input.remove();
    link.hidden = false;
    if (keep && title !== before.trim()) change(app, entry, path, { title: title || null });
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the list's keys are not for it
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    end(event.key === "Enter");
    link.focus();
  });
  input.addEventListener("blur", () => end(true));
  link.hidden = true;
  link.after(input);
  input.select();
  input.focus();
}

function save(path, format) {
  const link = h("a", { href: `${path}/export?format=${format}`, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

async function remove(app, row, entry, path) {
  const conversation = isConversation(entry);
  const title = titleOf(entry);
  const yes = await confirmed(conversation ? "Delete this conversation?" : "Delete this answer?", {
    yes: "Delete",
    danger: true,
    detail: `“${title}”${conversation ? " and all its answers are" : " is"} deleted for good.`,
  });
  if (!yes) return;
  const { id } = entry;
  // Not while it is shown: it would be asked for in vain.
  const open = app.store.get().route.id === id && location.hash;
  if (open) go("#/", { replaced: true });
  try {
    await app.api.delete(path, { query: conversation ? { responses: true } : {} });
  } catch (error) {
    if (error.status !== 404) {
      if (open) go(open, { replaced: true });
      return app.notify(`It was not deleted: ${error.message}`, { bad: true });
    }
  }
  const next = row.nextElementSibling ?? row.previousElementSibling;
  app.store.send({
    type: "history/removed",
    list: conversation ? "conversations" : "answers",
    ids: [id],
  });
  app.store.send({ type: "history/forgotten", id });
  app.announce("Deleted.");
  next?.firstChild.focus();
}
