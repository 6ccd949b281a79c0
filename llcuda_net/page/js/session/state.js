/** The slice `session`. */

const START = {
  state: "starting", // starting, required (a token), known
  problem: "", // why it is starting still
  met: false, // somebody was known in this page
  confirmed: 0, // how often the server has said who this is
  refused: 0, // requests of which the server wanted to know whose they are
  user: "",
  admin: false,
  needsToken: false, // there is something to sign out of
  version: null,
  starting: null, // what the server does before it serves
  capabilities: { history: false, semantic: false, models: false, max_body: 0 },
};

/** See START. */
export function sessionReducer(state = START, action) {
  switch (action.type) {
    case "session/required":
      return state.state === "required" ? state : { ...state, state: "required" };
    case "session/refused":
      return { ...state, refused: state.refused + 1 };
    case "session/problem":
      return state.problem === action.text ? state : { ...state, problem: action.text };
    case "session/known":
      return {
        ...state,
        ...action.session,
        state: "known",
        met: true,
        problem: "",
        confirmed: state.confirmed + 1,
      };
    default:
      return state;
  }
}
