/** Signing in and out, and asking the server who this is. */

import { ApiError, pause } from "../core/api.js";
import { tellOthers } from "./others.js";

/** Milliseconds after which a page that stays open asks again, which renews its cookie. */
const RENEW = 6 * 3600 * 1000;
/** Seconds between two questions, at least. */
const BETWEEN = 0.3;

/**
 * Ask the server who this is until it says so, and now and then again; follow the other tabs.
 * @param {Object} app see README.md
 */
export function startSession(app) {
  let asked = 0;
  let asking = false;
  let due = false;
  // One question at a time. What is heard meanwhile may be newer than its answer: it is asked again.
  const again = async () => {
    due = true;
    if (asking) return;
    asking = true;
    while (due) {
      due = false;
      asked = Date.now();
      await ask(app);
      await pause(BETWEEN);
    }
    asking = false;
  };
  again();
  // A request that was refused may have been sent before somebody signed in.
  app.store.watch(
    (state) => state.session.refused,
    (refused) => refused && again(),
  );
  setInterval(again, RENEW);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && Date.now() - asked > RENEW) again();
  });
  tellOthers.listen(again);
}

let signedIn = 0; // how often

async function ask(app) {
  for (let wait = 0.3; ; wait = Math.min(wait * 1.7, 5)) {
    const before = signedIn;
    try {
      const answer = await app.api.get("/v1/session");
      if (before !== signedIn) continue; // it is older than that
      return take(app, answer);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      app.store.send({ type: "session/problem", text: error.message });
      await pause(error.retryAfter ?? wait);
    }
  }
}

/** What GET and POST /v1/session answer becomes the state. */
function take(app, answer) {
  if (answer.user === null) return app.store.send({ type: "session/required" });
  const { met, user } = app.store.get().session;
  // Nothing of another user stays in the page.
  if (met && user !== answer.user.name) return location.reload();
  app.store.send({
    type: "session/known",
    session: {
      user: answer.user.name,
      admin: answer.user.admin,
      needsToken: answer.expires_at !== null,
      version: answer.version,
      starting: answer.starting,
      capabilities: answer.capabilities,
    },
  });
}

/**
 * Sign in.
 * @param {string} token
 * @returns {Promise<void>} rejects with an ApiError
 */
export async function signIn(app, token) {
  try {
    const answer = await app.api.post("/v1/session", { token });
    signedIn += 1;
    take(app, answer);
  } catch (error) {
    if (error.code !== "no_sign_in") throw error;
    take(app, await app.api.get("/v1/session")); // nobody needs to any more
  }
  tellOthers.say();
}

/**
 * Sign out, and leave nothing of this user in the page.
 * @param {{everywhere?: boolean}} [options] everywhere: in all browsers
 * @returns {Promise<void>} rejects with an ApiError
 */
export async function signOut(app, { everywhere = false } = {}) {
  try {
    await app.api.delete("/v1/session", { query: everywhere ? { all: "true" } : {} });
  } catch (error) {
    if (error.status !== 401) throw error; // it was over already
  }
  tellOthers.say();
  location.hash = "";
  location.reload();
}
