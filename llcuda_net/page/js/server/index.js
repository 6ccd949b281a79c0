/** The view `#/server`: how the server stands, live. */

import { serverReducer } from "./state.js";
import { serverView } from "./view.js";

export const serverReducers = { server: serverReducer };

export const serverViews = { server: serverView };
