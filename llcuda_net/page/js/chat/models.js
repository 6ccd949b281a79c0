/** The models that may be asked, and how each stands. Pure, but for `loadModels`. */

import { duration } from "./figures.js";

/**
 * Ask for the list of models.
 * @param {object} app
 * @param {AbortSignal} [signal]
 */
export async function loadModels({ store, api }, signal) {
  try {
    const { data } = await api.get("/v1/models", { signal });
    store.send({ type: "chat/models", models: chatModels(data) });
  } catch {
    // it is asked again when it is looked at, and when the server is back
  }
}

/** Those of a list that answer. */
export const chatModels = (models) =>
  models.filter(({ capabilities }) => !capabilities || capabilities.includes("completions"));

/**
 * The model of a name, or the default one.
 * @param {?object[]} models
 * @param {?string} name
 * @returns {?object} null: there is none, or it is not known yet
 */
export function modelOf(models, name) {
  if (!models) return null;
  if (!name) return models[0] ?? null;
  return models.find(({ id, aliases }) => id === name || aliases?.includes(name)) ?? null;
}

/** Whether a model takes images. */
export const takesImages = (model) => model?.modalities?.includes("image") ?? false;

/**
 * How a model stands, in words.
 * @param {object} model
 * @returns {{kind: string, words: string}} kind: ready, busy, loading, idle or bad
 */
export function standing(model) {
  const status = model.status ?? {};
  if (status.failed) return { kind: "bad", words: `could not be loaded: ${status.error}` };
  switch (model.state) {
    case "loaded":
      return { kind: "ready", words: "loaded" };
    case "busy":
      return { kind: "busy", words: "loaded, busy" };
    case "leaving":
      return { kind: "busy", words: "about to be unloaded" };
    case "loading": {
      const left =
        status.ready_in > 0 ? `, about ${duration(Math.ceil(status.ready_in) * 1000)} more` : "";
      return { kind: "loading", words: `is being loaded${left}`.replace(".0 s", " s") };
    }
    case "down":
      return { kind: "bad", words: status.reason || "not reached" };
    default:
      return { kind: "idle", words: "not loaded; a question loads it" };
  }
}

/**
 * Models whose names have all words of a text.
 * @param {object[]} models
 * @param {string} text
 * @returns {object[]}
 */
export function matching(models, text) {
  const words = text.toLowerCase().split(/\s+/u).filter(Boolean);
  return models.filter(({ id, aliases }) => {
    const names = [id, ...(aliases ?? [])].join(" ").toLowerCase();
    return words.every((word) => names.includes(word));
  });
}
