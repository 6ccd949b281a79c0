/**
 * A long list in pages. Of pages far from what is seen only a cursor and a count stay, so that
 * 100,000 entries take little memory; they are fetched again, by the cursor, when they are seen.
 *
 * A list is `{key, pages, more, error, stale}`, a page `{last, count, entries}`: `last` is the id
 * behind which the next page begins, `entries` are null where they were let go. All functions are
 * pure.
 */

/** Entries of a page, at most; and pages on each side of what is seen that keep their entries. */
export const PAGE = 100;
const NEAR = 4;

/** A list of which nothing is known. By `key`, late answers for those before it are known. */
export const emptyList = (key) => ({ key, pages: [], more: true, error: null, stale: 0 });

/** How many entries are known. */
export const sizeOf = (list) => list.pages.reduce((sum, page) => sum + page.count, 0);

/** The number of the page that has an entry, and its place in it; null behind the last one. */
export function placeOf(list, index) {
  for (let number = 0; number < list.pages.length; number++) {
    if (index < list.pages[number].count) return { number, index };
    index -= list.pages[number].count;
  }
  return null;
}

/** Entries `first` to `end`, null for those that were let go. */
export function slice(list, first, end) {
  const found = [];
  let start = 0;
  for (const { count, entries } of list.pages) {
    for (let at = Math.max(first, start); at < Math.min(end, start + count); at++) {
      found.push(entries && entries[at - start]);
    }
    start += count;
  }
  return found;
}

/** Where an entry is, among those that are here; -1: nowhere. */
export function indexOf(list, id) {
  let start = 0;
  for (const { count, entries } of list.pages) {
    const at = entries ? entries.findIndex((entry) => entry.id === id) : -1;
    if (at >= 0) return start + at;
    start += count;
  }
  return -1;
}

/** What a page comes behind. */
export const cursorOf = (list, number) => (number ? list.pages[number - 1].last : null);

/** The list with a page that was fetched behind `after`. */
export function withPage(list, number, after, entries, more) {
  if (number > list.pages.length || cursorOf(list, number) !== after) return list;
  const old = list.pages[number];
  const others = idsOf({ pages: list.pages.filter((page) => page !== old) });
  const fresh = entries.filter((entry) => !others.has(entry.id));
  // What the cursor names has moved: it leads somewhere else.
  if (entries.length && !fresh.length) return cut(list, number - 1);
  if (!old) {
    const pages = fresh.length ? [...list.pages, pageOf(fresh)] : list.pages;
    return { ...list, pages, more, error: null };
  }
  const end = fresh.findIndex((entry) => entry.id === old.last);
  if (end < 0)
    return { ...list, pages: [...list.pages.slice(0, number), pageOf(fresh)], more, error: null };
  return { ...list, pages: list.pages.with(number, pageOf(fresh.slice(0, end + 1))), error: null };
}

/** The list with what is now at its beginning; what is behind that stays. */
export function withHead(list, entries, more) {
  const head = entries.length ? [pageOf(entries)] : [];
  if (!more) return { ...list, pages: head, more, error: null };
  const index = entries.map((entry) => indexOf(list, entry.id)).findLast((at) => at >= 0) ?? -1;
  if (index < 0) return { ...list, pages: head, more, error: null };
  const at = placeOf(list, index);
  const rest = list.pages[at.number].entries.slice(at.index + 1);
  const behind = {
    ...list,
    pages: [...(rest.length ? [pageOf(rest)] : []), ...list.pages.slice(at.number + 1)],
  };
  const kept = without(behind, new Set(entries.map((entry) => entry.id)));
  // Without a page behind it, the head says whether there is more.
  return {
    ...kept,
    pages: [...head, ...kept.pages],
    more: kept.more || !kept.pages.length,
    error: null,
  };
}

/** The list with a new entry at its beginning, or with a newer version of one that it has. */
export function withEntry(list, entry) {
  if (indexOf(list, entry.id) >= 0) return withChange(list, entry.id, entry);
  for (const [number, { count, entries }] of list.pages.entries()) {
    const at = entries ? entries.findIndex((one) => one.created <= entry.created) : -1;
    if (at < 0 && entries) continue;
    if (at < 0) return list;
    if (!number && !at && count >= PAGE)
      return { ...list, pages: [pageOf([entry]), ...list.pages] };
    return { ...list, pages: list.pages.with(number, pageOf(entries.toSpliced(at, 0, entry))) };
  }
  // Older than what is here: it comes with its page, or is the last one.
  return list.more ? list : { ...list, pages: [...list.pages, pageOf([entry])] };
}

/**
 * The list with an entry that is pinned no more where it belongs: by when it was last used. Where
 * that is not known, it comes with its page.
 */
export function withUnpinned(list, id) {
  const index = indexOf(list, id);
  if (index < 0) return list;
  const entry = { ...slice(list, index, index + 1)[0], pinned: false };
  const rest = without(list, new Set([id]));
  for (const [number, { entries }] of rest.pages.entries()) {
    const at = entries?.findIndex((one) => !one.pinned && one.updated < entry.updated) ?? -1;
    if (at < 0) continue;
    if (!at && number && !rest.pages[number - 1].entries) return rest; // or in the page before
    return { ...rest, pages: rest.pages.with(number, pageOf(entries.toSpliced(at, 0, entry))) };
  }
  return rest.more ? rest : { ...rest, pages: [...rest.pages, pageOf([entry])] };
}

/** The list with an entry changed in place. */
export function withChange(list, id, changes) {
  const index = indexOf(list, id);
  if (index < 0) return list;
  const at = placeOf(list, index);
  const { entries } = list.pages[at.number];
  const changed = entries.with(at.index, { ...entries[at.index], ...changes });
  return {
    ...list,
    pages: list.pages.with(at.number, { ...list.pages[at.number], entries: changed }),
  };
}

/** The list without these ids. It ends at a page that was let go and has one of them at its end. */
export function without(list, ids) {
  const pages = [];
  let changed = false;
  for (const page of list.pages) {
    if (!page.entries && ids.has(page.last)) return { ...list, pages, more: true };
    const kept = page.entries?.filter((entry) => !ids.has(entry.id));
    if (!kept || kept.length === page.count) {
      pages.push(page);
      continue;
    }
    changed = true;
    if (kept.length) pages.push(pageOf(kept));
  }
  return changed ? { ...list, pages } : list;
}

/** The list in which only the first page, and those near what is seen, have their entries. */
export function withSeen(list, first, end) {
  const low = (placeOf(list, first)?.number ?? 0) - NEAR;
  const high = (placeOf(list, end)?.number ?? list.pages.length) + NEAR;
  const far = (page, number) => page.entries && number > 0 && (number < low || number > high);
  if (!list.pages.some(far)) return list;
  return {
    ...list,
    pages: list.pages.map((page, number) =>
      far(page, number) ? { ...page, entries: null } : page,
    ),
  };
}

/** The list up to a page. */
export function cut(list, number) {
  return { ...list, pages: list.pages.slice(0, Math.max(0, number)), more: true };
}

function idsOf(list) {
  return new Set(list.pages.flatMap((page) => page.entries?.map((entry) => entry.id) ?? []));
}

const pageOf = (entries) => ({ last: entries.at(-1).id, count: entries.length, entries });
