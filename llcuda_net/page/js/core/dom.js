/**
 * Elements, made by calls. Text is always text: the only way from a string to markup is `setHtml`,
 * for HTML that the server has made and cleaned.
 */

const SVG = "http://www.w3.org/2000/svg";

const policy = globalThis.trustedTypes?.createPolicy("llcuda", { createHTML: (html) => html });

/**
 * An element.
 * @param {string} tag
 * @param {Object} [attributes] `onclick` and its kin are listeners, `class`, `data-…`, `aria-…`
 *   and others attributes; true sets an empty one, false, null and undefined none
 * @param {...(Node|string|number|null|undefined|false|Array)} children
 */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of SVG; see `h`. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  setAttributes(element, attributes ?? {});
  element.append(...nodes(children));
  return element;
}

/** Set attributes and listeners of an element; see `h`. */
export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on") && typeof value === "function") {
      element.addEventListener(name.slice(2), value);
    } else if (name === "value") {
      element.value = value ?? "";
    } else if (value === false || value === null || value === undefined) {
      element.removeAttribute(name);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Put children in the place of those that an element has. */
export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

/**
 * Show HTML that the server rendered and cleaned. Never for anything else.
 * @param {Element} element
 * @param {string} html
 */
export function setHtml(element, html) {
  element.innerHTML = policy ? policy.createHTML(html) : html;
  for (const link of element.querySelectorAll("a[href]")) link.target = "_blank";
}

/**
 * Make the children of an element those of a list, and keep the nodes of those that stay.
 * @param {Element} parent
 * @param {Array} items
 * @param {function(any): string} key names an item among them
 * @param {function(any): Element} make
 * @param {function(Element, any): void} [update]
 */
export function reconcile(parent, items, key, make, update) {
  const names = items.map((item) => String(key(item)));
  const stay = new Set(names);
  const known = new Map();
  // First, so that those that stay need not be moved: what is moved loses the focus.
  for (const child of [...parent.children]) {
    if (stay.has(child.dataset.key)) known.set(child.dataset.key, child);
    else child.remove();
  }
  let place = parent.firstElementChild;
  items.forEach((item, at) => {
    let child = known.get(names[at]);
    if (child) {
      known.delete(names[at]);
      update?.(child, item);
    } else {
      child = make(item);
      child.dataset.key = names[at];
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  });
}
