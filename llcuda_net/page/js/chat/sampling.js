/** The settings of an answer: which there are, in words, and what may stand in them. Pure. */

/**
 * @typedef {object} Setting
 * @property {string} name of the field in a request
 * @property {string} label
 * @property {string} hint what it does, in a sentence
 * @property {number} [low] least value
 * @property {number} [high] largest value
 * @property {number} [step]
 * @property {boolean} [whole] whole numbers only
 * @property {boolean} [lines] a list of texts, one a line
 * @property {string} absent what holds where nothing is given
 */

/** @type {Setting[]} */
export const SETTINGS = [
  {
    name: "temperature",
    label: "How free (temperature)",
    hint: "0 takes the likeliest word each time. 1 is as the model learnt it. Above, it gets wild.",
    low: 0,
    high: 2,
    step: 0.05,
    absent: "0.8",
  },
  {
    name: "top_p",
    label: "Only likely words (top_p)",
    hint: "Keeps the likeliest words that together have this share. 1 keeps all.",
    low: 0,
    high: 1,
    step: 0.01,
    absent: "0.95",
  },
  {
    name: "top_k",
    label: "At most this many words (top_k)",
    hint: "Chooses among so many of the likeliest. 0 means all.",
    low: 0,
    high: 1000,
    step: 1,
    whole: true,
    absent: "40",
  },
  {
    name: "min_p",
    label: "No unlikely words (min_p)",
    hint: "Drops words that are less likely than this share of the likeliest one. 0 drops none.",
    low: 0,
    high: 1,
    step: 0.01,
    absent: "0.05",
  },
  {
    name: "repeat_penalty",
    label: "Against repeating (repeat_penalty)",
    hint: "1 does nothing. 1.1 makes words that were just said a little less likely.",
    low: 0.5,
    high: 2,
    step: 0.05,
    absent: "1",
  },
  {
    name: "max_output_tokens",
    label: "Longest answer (tokens)",
    hint: "It ends there, in the midst of a sentence if need be. A token is about ¾ of a word.",
    low: 1,
    high: 1048576,
    step: 1,
    whole: true,
    absent: "what the context holds",
  },
  {
    name: "seed",
    label: "Seed",
    hint: "The same seed, question and settings give the same answer. Empty draws a new one.",
    low: 0,
    high: 4294967294,
    step: 1,
    whole: true,
    absent: "drawn each time",
  },
  {
    name: "stop",
    label: "Stop at",
    hint: "The answer ends before one of these texts, one a line.",
    lines: true,
    absent: "nothing",
  },
];

/**
 * The value that a text in a field means.
 * @param {Setting} setting
 * @param {string} text
 * @returns {{value: *, problem: string}} value undefined: not given
 */
export function parsed(setting, text) {
  if (setting.lines) {
    const lines = text.split("\n").filter((line) => line !== "");
    return { value: lines.length ? lines.slice(0, 64) : undefined, problem: "" };
  }
  const written = text.trim().replace(",", ".");
  if (written === "") return { value: undefined, problem: "" };
  const value = Number(written);
  const kind = setting.whole ? "a whole number" : "a number";
  if (!Number.isFinite(value) || (setting.whole && !Number.isInteger(value))) {
    return { value: undefined, problem: `This must be ${kind}.` };
  }
  if (value < setting.low || value > setting.high) {
    return { value: undefined, problem: `This must be ${setting.low} to ${setting.high}.` };
  }
  return { value, problem: "" };
}

/**
 * What stands in the field of a value.
 * @param {Setting} setting
 * @param {*} value
 * @returns {string}
 */
export function written(setting, value) {
  if (value === undefined || value === null) return "";
  if (setting.lines) return (Array.isArray(value) ? value : [value]).join("\n");
  return String(value);
}

/**
 * The settings out of what a response says of itself, or of what is stored: only known ones
 * with sane values.
 * @param {?object} given
 * @returns {object}
 */
export function known(given) {
  const found = {};
  for (const setting of SETTINGS) {
    const value = given?.[setting.name];
    if (value === undefined || value === null) continue;
    const { value: good } = parsed(setting, written(setting, value));
    if (good !== undefined) found[setting.name] = good;
  }
  return found;
}
