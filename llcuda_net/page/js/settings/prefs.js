/** What a person prefers in this browser, kept in localStorage. */

const KEY = "llcuda";

/** What there is, and how it is at first. */
export const DEFAULTS = Object.freeze({
  theme: "auto", // auto, light, dark
  certainty: true, // ask for log-probabilities, so that answers can be shaded
  reasoningOpen: false,
  sendWith: "enter", // enter, mod+enter
  chat: Object.freeze({}), // of new chats: model, instructions, temperature, top_p, …
});

/** The slice `prefs`. */
export function prefsReducer(state = read(), action) {
  if (action.type !== "prefs/set") return state;
  return { ...state, ...action.prefs };
}

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { ...DEFAULTS, ...(kept && typeof kept === "object" ? kept : {}) };
  } catch {
    return DEFAULTS; // no storage, or not ours
  }
}

/** Keep them, also for the other tabs, and take what other tabs change. */
export function startPrefs(store) {
  store.watch(
    (state) => state.prefs,
    (prefs, before) => {
      document.documentElement.dataset.theme = prefs.theme;
      if (!before) return;
      try {
        localStorage.setItem(KEY, JSON.stringify(prefs));
      } catch {
        // private windows may have no storage: they last for this page
      }
    },
  );
  addEventListener("storage", (event) => {
    if (event.key === KEY) store.send({ type: "prefs/set", prefs: read() });
  });
}
