/** The tabs of a browser tell each other that somebody signed in or out. */

const channel = new BroadcastChannel("llcuda-session");

export const tellOthers = {
  /** Tell the others. */
  say: () => channel.postMessage("changed"),

  /** Call `hear` when another tab has told. */
  listen: (hear) => channel.addEventListener("message", hear),
};
