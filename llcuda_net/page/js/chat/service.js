/** What all views of the chat share: one loader and one outbox for each app. */

import { ownDrafts } from "./drafts.js";
import { createLoader } from "./loader.js";
import { loadModels } from "./models.js";
import { createOutbox } from "./outbox.js";

const known = new WeakMap();

/**
 * @param {object} app
 * @returns {{loader: object, outbox: object}}
 */
export function chatOf(app) {
  if (!known.has(app)) {
    const outbox = createOutbox(app);
    known.set(app, { loader: createLoader(app), outbox });
    app.store.watch(
      ({ session }) => session.state === "known" && session.confirmed,
      (confirmed) => {
        if (!confirmed) return;
        ownDrafts(app.store.get().session.user);
        outbox.start();
        loadModels(app);
      },
    );
    app.store.watch(
      (state) => state.live.connection,
      (connection, before) => connection === "open" && before === "lost" && loadModels(app),
    );
  }
  return known.get(app);
}
