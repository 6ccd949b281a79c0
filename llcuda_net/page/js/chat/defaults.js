/** What new chats begin with, in the settings. */

import { h } from "../core/dom.js";
import { modelButton } from "./model_picker.js";
import { loadModels } from "./models.js";
import { known } from "./sampling.js";
import { settingsForm } from "./settings_form.js";

/**
 * A fieldset for the settings.
 * @param {object} app
 * @param {AbortSignal} signal
 * @returns {Element}
 */
export function chatDefaults(app, signal) {
  const chat = () => app.store.get().prefs.chat ?? {};
  let shown = ""; // as the form has it: what is being written in it is not replaced by itself
  const keep = (chat) => {
    shown = JSON.stringify(chat);
    app.store.send({ type: "prefs/set", prefs: { chat } });
  };
  const form = settingsForm({
    change: ({ instructions, sampling }) =>
      keep({ model: chat().model, instructions, ...sampling }),
    reset: () => (keep({}), form.set({})),
  });
  app.store.watch(
    (state) => state.prefs.chat ?? {},
    (chat) => {
      if (JSON.stringify(chat) === shown) return;
      shown = JSON.stringify(chat);
      form.set({ instructions: chat.instructions, sampling: known(chat) });
    },
    signal,
  );
  const picker = modelButton(
    app,
    {
      current: (state) => state.prefs.chat?.model ?? "",
      choose: (model) => keep({ ...chat(), model }),
    },
    signal,
  );
  loadModels(app, signal);
  const model = h("div", { class: "row" }, h("strong", { class: "small" }, "Model"), picker);
  return h("fieldset", {}, h("legend", {}, "New chats"), model, form.element);
}
