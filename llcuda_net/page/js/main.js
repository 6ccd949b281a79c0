/** Puts the parts together: the state, the API, the live stream, and the frame with its views. */

import { createApi } from "./core/api.js";
import { startKeys } from "./core/keys.js";
import { startLive, liveReducers } from "./core/live/index.js";
import { routeReducer, startRouter } from "./core/router.js";
import { createStore } from "./core/store.js";
import { chatReducers, chatViews, startChat } from "./chat/index.js";
import { historyPanel, historyReducers } from "./history/index.js";
import { serverReducers, serverViews } from "./server/index.js";
import { sessionReducer, startSession, signInView, startingView } from "./session/index.js";
import { prefsReducer, startPrefs } from "./settings/prefs.js";
import { settingsView } from "./settings/view.js";
import { frame } from "./shell/frame.js";
import { createNotices } from "./shell/notify.js";
import { closeAll } from "./shell/overlays.js";
import { replace } from "./core/dom.js";

const store = createStore({
  route: routeReducer,
  prefs: prefsReducer,
  session: sessionReducer,
  ...liveReducers,
  ...chatReducers,
  ...historyReducers,
  ...serverReducers,
});
const api = createApi(() => store.send({ type: "session/refused" }));
const notices = createNotices();
const app = { store, api, announce: notices.announce, notify: notices.notify };

startPrefs(store);
startRouter(store);
startKeys();

const root = document.getElementById("app");
const views = { ...chatViews, ...serverViews, settings: settingsView };
let made = null; // the frame; kept while somebody signs in again, as is its title
let title = null;

store.watch(
  (state) => state.session.state,
  (state) => {
    if (state === "starting") replace(root, startingView(app));
    if (state === "required") {
      // Nothing of whoever was here is left above the form.
      closeAll();
      notices.clear();
      if (made) title = document.title;
      document.title = "llcuda";
      replace(root, signInView(app), notices.elements);
    }
    if (state !== "known") return;
    startChat(app); // what an earlier page has left to be sent
    made ??= frame(app, { side: historyPanel, views });
    replace(root, made, notices.elements);
    if (title) document.title = title;
    title = null;
    app.live ??= startLive(app);
  },
);
startSession(app);
