/** Keyboard shortcuts: a key, what it does in words, and the call. `?` lists them. */

const bound = new Map();

/** The shortcuts that work now: `[{ keys, label }]`. */
export const shortcuts = () => [...bound.values()].map(({ keys, label }) => ({ keys, label }));

/**
 * @param {string} keys such as "mod+k" (Ctrl, on Apple's Command), "/", "Escape", "alt+n"
 * @param {string} label what it does
 * @param {function(KeyboardEvent): (void|false)} run false: the key was not for it
 * @param {AbortSignal} [signal] ends it
 */
export function bind(keys, label, run, signal) {
  const id = Symbol(keys);
  bound.set(id, { keys, label, run });
  signal?.addEventListener("abort", () => bound.delete(id), { once: true });
}

/** Listen; called once. */
export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    if (document.querySelector("dialog:modal")) return; // what is behind it is not there now
    const name = nameOf(event);
    for (const { keys, run } of [...bound.values()].reverse()) {
      if (keys !== name || (plain(keys) && writes(event.target))) continue;
      if (run(event) === false) continue;
      event.preventDefault();
      return;
    }
  });
}

function nameOf(event) {
  const key = keyOf(event);
  const shift = event.shiftKey && event.key.length > 1;
  const mod = event.ctrlKey || event.metaKey;
  return [mod && "mod", event.altKey && "alt", shift && "shift", key].filter(Boolean).join("+");
}

// With Alt a key may give an accent or a sign, as on Apple's keyboards, and in other scripts another
// letter: then it is the one that is printed there in Latin script.
function keyOf({ key, code, altKey, ctrlKey, metaKey }) {
  const [, letter] = /^Key([A-Z])$/u.exec(code) ?? [];
  const meant = altKey || ctrlKey || metaKey ? letter : null;
  if (meant && !/^[a-z]$/iu.test(key)) return meant.toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
}

const plain = (keys) => keys.length === 1;

/** Whether one writes into an element. */
export const writes = (target) => target.closest?.("input, textarea, select, [contenteditable]") !== null;
