/** The live stream; see README.md. */

/** The slice `live`. */
export const liveReducers = { live: (state = { connection: "starting" }) => state };

/** Begin; called once somebody is known. */
export function startLive(app) {
  return {};
}
