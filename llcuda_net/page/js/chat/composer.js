/** Where a question is written: text that grows, images, and the buttons to send and to stop. */

import { h, replace } from "../core/dom.js";
import { icon } from "../core/icons.js";
import { draftImages, draftOf, keepDraft, keepImages } from "./drafts.js";
import { fileProblem, readImage, thumbnails } from "./images.js";

const TOUCH = "(hover: none) and (pointer: coarse)";

/**
 * @param {object} app
 * @param {object} options
 * @param {string} options.place whose draft it has
 * @param {function({text: string, images: object[]}): void} options.send
 * @param {function(): void} options.stop
 * @param {AbortSignal} signal
 * @returns {{element: Element, focus: function(): void, fill: function(string, object[]): void,
 *   set: function({busy: string, images: boolean}): void}} busy: "" where it can send, "sending" or
 *   "running"; images: whether the model takes some
 */
export function composer(app, { place, send, stop }, signal) {
  let images = draftImages(place);
  let takesImages = false;
  let busy = "";
  const text = h("textarea", {
    rows: "1",
    dir: "auto",
    "aria-label": "Your question",
    placeholder: "Ask something",
    enterkeyhint: "send",
    "aria-describedby": "composer-problem",
  });
  const problem = h("p", { class: "problem small", id: "composer-problem", role: "alert" });
  const shelf = h("div", { class: "thumbs" });
  const files = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  const attach = h(
    "button",
    {
      type: "button",
      class: "square",
      "aria-label": "Attach images",
      title: "Attach images",
      onclick: () => files.click(),
    },
    icon("image"),
  );
  const go = h(
    "button",
    { type: "submit", class: "primary square", "aria-label": "Send", title: "Send" },
    icon("send"),
  );
  const halt = h(
    "button",
    {
      type: "button",
      class: "outline square",
      "aria-label": "Stop the answer",
      title: "Stop the answer (Esc)",
      onclick: stop,
    },
    icon("stop"),
  );
  const element = h(
    "form",
    { class: "composer", "aria-label": "Question" },
    problem,
    shelf,
    h("div", { class: "composer-row" }, attach, files, text, halt, go),
  );

  text.value = draftOf(place);
  const options = { signal };
  text.addEventListener("input", () => (keepDraft(place, text.value), show()), options);
  text.addEventListener("keydown", onKey, options);
  text.addEventListener("paste", onPaste, options);
  files.addEventListener("change", () => (add([...files.files]), (files.value = "")), options);
  element.addEventListener("submit", (event) => (event.preventDefault(), submit()), options);
  element.addEventListener("dragover", (event) => onDrag(event, true), options);
  element.addEventListener("dragleave", (event) => onDrag(event, false), options);
  element.addEventListener("drop", onDrop, options);
  app.store.watch((state) => state.prefs.sendWith, show, signal);
  requestAnimationFrame(grow);
  show();

  function show() {
    attach.hidden = !takesImages;
    halt.hidden = busy !== "running";
    go.hidden = busy === "running";
    go.disabled = busy !== "" || (text.value.trim() === "" && images.length === 0);
    keepImages(place, images);
    replace(shelf, thumbnails(images, remove));
    shelf.hidden = images.length === 0;
    grow();
  }

  // Grows with its text up to a bound that the style sheet has.
  function grow() {
    text.style.height = "auto";
    if (text.scrollHeight) text.style.height = `${text.scrollHeight + 2}px`;
  }

  function submit() {
    const asked = { text: text.value.trim(), images };
    if (busy || (asked.text === "" && images.length === 0)) return;
    say("");
    images = [];
    text.value = "";
    keepDraft(place, "");
    show();
    send(asked);
  }

  function onKey(event) {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey || event.altKey) return;
    const mod = event.ctrlKey || event.metaKey;
    // The keyboard of a phone has no Shift+Enter: there Enter is a new line, and the button sends.
    const line = app.store.get().prefs.sendWith === "mod+enter" || matchMedia(TOUCH).matches;
    if (line && !mod) return;
    event.preventDefault();
    submit();
  }

  function onPaste(event) {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length === 0) return;
    event.preventDefault();
    add(pasted);
  }

  function onDrag(event, over) {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    element.classList.toggle("over", over);
  }

  function onDrop(event) {
    element.classList.remove("over");
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  }

  async function add(found) {
    if (!takesImages) return say("This model does not take images. Choose one that does.");
    say("");
    for (const file of found) {
      const wrong = fileProblem(file, images.length);
      if (wrong) {
        say(wrong);
        continue;
      }
      try {
        images = [...images, await readImage(file)];
      } catch (error) {
        say(error.message);
      }
    }
    show();
    text.focus();
  }

  function remove(at) {
    images = images.filter((_, other) => other !== at);
    show();
    text.focus();
  }

  function say(words) {
    replace(problem, words);
  }

  return {
    element,
    focus: () => text.focus({ preventScroll: true }),
    fill(words, others) {
      // What was being written stays, too.
      text.value = [words, text.value.trim()].filter(Boolean).join("\n\n");
      images = [...others, ...images];
      keepDraft(place, text.value);
      show();
      text.focus();
    },
    set(now) {
      if (now.busy === busy && now.images === takesImages) return;
      ({ busy, images: takesImages } = now);
      show();
    },
  };
}
