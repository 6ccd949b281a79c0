/**
 * One state, changed by actions only.
 *
 * A slice of the state belongs to one feature, and its reducer is a pure function: the slice and an
 * action in, the next slice out (the same object where nothing changed). Components watch what they
 * show, and are called in one microtask after all that was sent in this turn.
 */

/**
 * @param {Object<string, function(any, {type: string}): any>} reducers one a slice; called with
 *   undefined once, for the first state
 * @returns {{get: function(): Object, send: function(Object): void, watch: Function}}
 */
export function createStore(reducers) {
  const start = { type: "start" };
  let state = Object.fromEntries(
    Object.entries(reducers).map(([name, reduce]) => [name, reduce(undefined, start)]),
  );
  const watchers = new Set();
  let due = false;

  function settle() {
    due = false;
    for (const watcher of [...watchers]) {
      const value = watcher.select(state);
      if (Object.is(value, watcher.value) || !watchers.has(watcher)) continue;
      const before = watcher.value;
      watcher.value = value;
      try {
        watcher.show(value, before);
      } catch (error) {
        reportError(error); // of one component; the others go on
      }
    }
  }

  return {
    get: () => state,

    /** Change the state. An action is an object with a type, "slice/what happened". */
    send(action) {
      const next = {};
      let changed = false;
      for (const [name, reduce] of Object.entries(reducers)) {
        next[name] = reduce(state[name], action);
        changed ||= next[name] !== state[name];
      }
      if (!changed) return;
      state = next;
      if (!due) {
        due = true;
        queueMicrotask(settle);
      }
    },

    /**
     * Call `show(value, before)` now, and whenever what `select(state)` gives is another value.
     * @param {AbortSignal} signal ends it
     */
    watch(select, show, signal) {
      if (signal?.aborted) return;
      const watcher = { select, show, value: select(state) };
      watchers.add(watcher);
      signal?.addEventListener("abort", () => watchers.delete(watcher), { once: true });
      show(watcher.value, undefined);
    },
  };
}
