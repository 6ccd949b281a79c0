/**
 * The entries of a path in the document: those that stay are kept, older ones come by scrolling.
 */

import { h, setAttributes } from "../core/dom.js";
import { createEntry } from "./entry.js";
import { followEnd } from "./scroll.js";

/**
 * @param {object} app
 * @param {object} acts as of createEntry
 * @param {function(): void} older called when the reader comes near the beginning
 * @param {AbortSignal} signal
 * @returns {{element: Element, button: Element, show: function, toEnd: function, reveal: function}}
 */
export function createFeed(app, acts, older, signal) {
  const entries = new Map(); // by key, in the order of the path
  const content = h("div", { class: "feed" });
  const sentinel = h("p", { class: "older small muted", hidden: true }, "Loading older ones…");
  const column = h("div", { class: "column" }, sentinel, content);
  const element = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Conversation" },
    column,
  );
  const scroll = followEnd(element, content, signal);
  // What one opens or switches there is what one looks at: it does not run away to the end.
  content.addEventListener(
    "click",
    (event) => event.target.closest("button, summary") && scroll.leave(),
  );
  const watcher = new IntersectionObserver(
    (seen) => seen.some((one) => one.isIntersecting) && older(),
    {
      root: element,
      rootMargin: "800px 0px",
    },
  );
  watcher.observe(sentinel);
  signal.addEventListener("abort", () => {
    watcher.disconnect();
    for (const entry of entries.values()) entry.end();
  });

  /**
   * @param {{node: object, versions: ?object}[]} path
   * @param {boolean} more whether there are older ones
   */
  function show(path, more) {
    // A feed without articles is none.
    setAttributes(
      content,
      path.length ? { role: "feed", "aria-label": "Messages" } : { role: null, "aria-label": null },
    );
    const keys = new Set(path.map(({ node }) => keyOf(node)));
    scroll.keeping(() => {
      for (const [key, entry] of entries) {
        if (!keys.has(key)) (entry.end(), entries.delete(key));
      }
      let place = content.firstElementChild;
      for (const { node, versions } of path) {
        const key = keyOf(node);
        const entry = entries.get(key) ?? createEntry(app, acts);
        entries.set(key, entry);
        if (entry.node !== node || entry.versions !== JSON.stringify(versions)) {
          entry.show(node, versions);
          Object.assign(entry, { node, versions: JSON.stringify(versions) });
        }
        if (entry.element === place) place = place.nextElementSibling;
        else content.insertBefore(entry.element, place);
      }
    });
    if (sentinel.hidden === more) {
      sentinel.hidden = !more;
    } else if (more) {
      // An observer tells of changes only: seen once more, it is told again.
      watcher.unobserve(sentinel);
      watcher.observe(sentinel);
    }
  }

  /** Bring an entry to the reader. */
  function reveal(id) {
    const entry = [...entries.values()].find((one) => one.node.id === id);
    scroll.leave();
    entry?.element.scrollIntoView({ block: "start" });
    entry?.element.focus({ preventScroll: true });
  }

  return { element, button: scroll.button, show, toEnd: scroll.toEnd, reveal };
}

// A turn keeps its element when it has become a response.
const keyOf = (node) => node.key ?? node.id;
