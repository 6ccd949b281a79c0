/** The route is the fragment of the address: `#/c/ID?answer=…`. */

/**
 * @param {string} hash
 * @returns {{view: string, id: string, query: Object<string, string>}} view is "" for a new chat
 */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  const [view = "", id = ""] = path.split("/").map(decoded);
  return { view, id, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The fragment of a route: `href("c", id, { answer })`. */
export function href(view, id = "", query = {}) {
  const asked = new URLSearchParams(query).toString();
  const path = [view, id].filter(Boolean).map(encodeURIComponent).join("/");
  return `#/${path}${asked && `?${asked}`}`;
}

/** Go to a route; `{ replaced: true }` leaves none to go back to. */
export function go(target, { replaced = false } = {}) {
  if (replaced) {
    history.replaceState(null, "", target);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = target;
  }
}

/** The slice `route`. */
export function routeReducer(state = parse(location.hash), action) {
  return action.type === "route/changed" ? action.route : state;
}

/** Follow the address. */
export function startRouter(store) {
  window.addEventListener("hashchange", () => {
    store.send({ type: "route/changed", route: parse(location.hash) });
  });
}
