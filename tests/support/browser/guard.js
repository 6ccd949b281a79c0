// Sees every change of a page, also one that is gone before a test looks. An error in the console is:
// within an answer, an element or attribute that is none of these; elsewhere, one that loads, runs
// or covers.
(() => {
  // What Markdown becomes, and with what the page completes it.
  const ELEMENTS = new Set(
    ("p br hr blockquote pre em strong s h1 h2 h3 h4 h5 h6 ul li ol table thead tbody tr th td a code " +
      "div span button svg path details summary").split(" "),
  );
  const ATTRIBUTES = new Set(
    "class dir href title rel target align start role tabindex type open d viewBox".split(" "),
  );
  const NEVER = new Set(
    "script iframe object embed base meta link style frame portal audio video template".split(" "),
  );
  const LEADS = new Set("href src action formaction xlink:href".split(" "));
  const RUNS = /^\s*(javascript|vbscript|data:text)/iu;
  const OWN = /^(\/page\/|data:image\/|blob:)/u;

  const wrong = (what) => console.error(`guard: ${what}`);

  function anywhere(element) {
    if (element.closest("head")) return;
    if (NEVER.has(element.localName)) wrong(`an element ${element.localName}`);
    for (const { name, value } of element.attributes) {
      if (name.startsWith("on")) wrong(`an attribute ${name}`);
      if (LEADS.has(name) && RUNS.test(value)) wrong(`${name} leads to ${value}`);
      if (name === "src" && !OWN.test(value)) wrong(`it loads ${value}`);
    }
  }

  function inAnswer(element) {
    const tag = element.localName;
    if (!ELEMENTS.has(tag)) wrong(`an element ${tag}`);
    for (const { name, value } of element.attributes) {
      if (name === "href" && !/^(https?|mailto):/iu.test(value)) wrong(`a link to ${value}`);
      if (ATTRIBUTES.has(name) || name.startsWith("aria-") || name.startsWith("data-")) continue;
      wrong(`an attribute ${name} of ${tag}`);
    }
  }

  // A node that is gone again has lost its parents; the target of its record has its own.
  function look(element, target) {
    anywhere(element);
    if (target.closest(".blocks")) inAnswer(element);
    else if (element.parentElement?.closest(".blocks")) inAnswer(element);
  }

  new MutationObserver((records) => {
    for (const { addedNodes, target, type } of records) {
      if (!(target instanceof Element)) continue;
      if (type === "attributes" && target.parentElement) look(target, target.parentElement);
      for (const node of addedNodes) {
        if (!(node instanceof Element)) continue;
        look(node, target);
        for (const inner of node.querySelectorAll("*")) look(inner, target);
      }
    }
  }).observe(document, { subtree: true, childList: true, attributes: true });
})();
