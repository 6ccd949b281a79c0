/** Images of a question: what may be attached, and how large photos become small enough. */

import { h } from "../core/dom.js";

const KINDS = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"];
/** Above one of these an image is made smaller: models see no more, and each turn has it again. */
const LARGEST_SIDE = 2048;
const LARGEST_BYTES = 2 << 20;
/** What is not even tried. */
const MOST_BYTES = 64 << 20;
export const MOST_IMAGES = 8;

/**
 * Why a file cannot be attached; empty: it can.
 * @param {{name: string, type: string, size: number}} file
 * @param {number} have how many there are
 * @returns {string}
 */
export function fileProblem(file, have) {
  const name = file.name || "The image";
  if (!KINDS.includes(file.type)) {
    return `${name} is not an image of a kind that models take: PNG, JPEG, WebP, GIF or BMP.`;
  }
  if (file.size > MOST_BYTES) return `${name} is too large: at most 64 MiB.`;
  if (have >= MOST_IMAGES) return `At most ${MOST_IMAGES} images go with one question.`;
  return "";
}

/**
 * A file as an image of a question.
 * @param {File} file
 * @returns {Promise<{name: string, url: string}>} a data: URL
 * @throws {Error} it cannot be read as an image
 */
export async function readImage(file) {
  const name = file.name || "image";
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(`${name} cannot be read as an image.`);
  });
  const scale = Math.min(1, LARGEST_SIDE / Math.max(picture.width, picture.height));
  if (scale === 1 && file.size <= LARGEST_BYTES) return { name, url: await dataUrl(file) };
  const canvas = h("canvas", {
    width: Math.max(1, Math.round(picture.width * scale)),
    height: Math.max(1, Math.round(picture.height * scale)),
  });
  const paint = canvas.getContext("2d");
  paint.fillStyle = "#fff"; // JPEG has no transparency
  paint.fillRect(0, 0, canvas.width, canvas.height);
  paint.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return { name, url: canvas.toDataURL("image/jpeg", 0.9) };
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

/**
 * Images that are shown small, each with a button that removes it.
 * @param {{name: string, url: string}[]} images
 * @param {?function(number): void} remove null: they are only shown
 * @returns {Element[]}
 */
export function thumbnails(images, remove) {
  return images.map(({ name, url }, at) =>
    h(
      "span",
      { class: "thumb" },
      h("img", { src: url, alt: name || `Image ${at + 1}` }),
      remove &&
        h(
          "button",
          { class: "square", "aria-label": `Remove ${name}`, onclick: () => remove(at) },
          "×",
        ),
    ),
  );
}
