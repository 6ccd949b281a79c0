/**
 * What the page adds to rendered HTML: a head with a copy button for code, tables that scroll by
 * themselves, links that say where they lead.
 */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";

/**
 * Complete a block that setHtml has just filled.
 * @param {Element} block
 * @param {object} app for what is announced
 */
export function decorate(block, app) {
  for (const code of block.querySelectorAll("pre > code")) frameCode(code.parentElement, code, app);
  for (const table of block.querySelectorAll("table")) {
    const frame = h("div", {
      class: "table",
      role: "region",
      tabindex: "0",
      "aria-label": "Table",
    });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const link of block.querySelectorAll("a[href]")) {
    link.rel = "nofollow noopener noreferrer";
    link.title = link.protocol === "mailto:" ? link.href : `Opens ${link.host} in a new tab`;
    link.dataset.host = link.host || link.pathname; // seen on focus, too
  }
}

function frameCode(pre, code, app) {
  if (pre.parentElement.classList.contains("code")) return;
  const language = /(?:^|\s)language-(\S{1,30})/u.exec(code.className)?.[1] ?? "";
  const frame = h(
    "div",
    { class: "code" },
    h(
      "div",
      { class: "code-head" },
      h("span", {}, language),
      copyButton(app, "Copy the code", () => code.textContent),
    ),
  );
  pre.replaceWith(frame);
  pre.tabIndex = 0; // so that it can be scrolled by keyboard
  frame.append(pre);
}

/**
 * A button that copies a text.
 * @param {object} app
 * @param {string} label its name
 * @param {function(): (string|Promise<string>)} text
 * @returns {HTMLButtonElement}
 */
export function copyButton(app, label, text) {
  const button = h(
    "button",
    { class: "square small", "aria-label": label, title: label },
    icon("copy"),
  );
  button.addEventListener("click", async () => {
    const done = await copied(await text());
    if (!done) return app.notify("The browser does not let this page copy.", { bad: true });
    replace(button, icon("check"));
    app.announce("Copied");
    setTimeout(() => replace(button, icon("copy")), 1500);
  });
  return button;
}

/**
 * Put a text on the clipboard. Pages that are not on this machine and have no TLS lack the
 * clipboard's interface: there the old way is taken.
 * @param {string} text
 * @returns {Promise<boolean>} whether it is there
 */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "unseen", "aria-hidden": "true" });
    field.value = text;
    const back = document.activeElement;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    back?.focus();
    return done;
  }
}
