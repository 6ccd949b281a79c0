/** Who uses the page: known, or asked for a token. */

export { startSession } from "./actions.js";
export { sessionReducer } from "./state.js";
export { signInView, startingView } from "./view.js";
