/** Where the reader is: at the end, which is followed as it grows, or above it. */

import { h } from "../core/dom.js";
import { icon } from "../core/icons.js";

const NEAR = 48;

/**
 * @param {Element} scroller
 * @param {Element} content what grows in it
 * @param {AbortSignal} signal
 * @returns {{button: Element, toEnd: function(): void, leave: function(): void,
 *   keeping: function(function(): void): void}}
 *   keeping: change what is above what is read, without moving it
 */
export function followEnd(scroller, content, signal) {
  let following = true;
  let last = 0;
  const button = h(
    "button",
    { class: "outline to-end", hidden: true, onclick: toEnd },
    icon("down"),
    "Go to the end",
  );
  const left = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;

  // Only a reader who scrolls up leaves the end: content that grows does not.
  scroller.addEventListener(
    "scroll",
    () => {
      if (scroller.scrollTop < last - 1 && left() > NEAR) following = false;
      else if (left() <= NEAR) following = true;
      last = scroller.scrollTop;
      show();
    },
    { signal, passive: true },
  );
  const watcher = new ResizeObserver(() => {
    if (following) jump();
    show();
  });
  watcher.observe(content);
  watcher.observe(scroller);
  signal.addEventListener("abort", () => watcher.disconnect());

  function show() {
    button.hidden = following || left() <= NEAR;
  }

  function jump() {
    scroller.scrollTop = scroller.scrollHeight;
    last = scroller.scrollTop;
  }

  function toEnd() {
    following = true;
    jump();
    show();
  }

  function keeping(change) {
    const anchor = [...content.children].find((one) => {
      return one.getBoundingClientRect().bottom > scroller.getBoundingClientRect().top;
    });
    const before = anchor?.getBoundingClientRect().top;
    // The browser's own anchoring must not do the same once more; Safari has none.
    scroller.style.overflowAnchor = "none";
    requestAnimationFrame(() => (scroller.style.overflowAnchor = ""));
    change();
    if (following) return jump();
    if (anchor?.isConnected) scroller.scrollTop += anchor.getBoundingClientRect().top - before;
    last = scroller.scrollTop;
  }

  return { button, toEnd, leave: () => (following = false), keeping };
}
