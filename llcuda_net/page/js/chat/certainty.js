/** How sure the model was, as levels, words and alternatives. Pure functions. */

/** Least probability of each level, the surest first; the rest is the last level. */
export const LEVELS = [
  { least: 0.9, words: "sure" },
  { least: 0.6, words: "fairly sure" },
  { least: 0.3, words: "unsure" },
  { least: 0, words: "guessing" },
];

/**
 * @typedef {object} Word
 * @property {string} text with the white space before it
 * @property {number} probability of its least likely token
 * @property {number} level index into LEVELS
 * @property {{text: string, tokens: {text: string, probability: number}[]}[]} tokens
 *     each with its alternatives, the likeliest first
 */

/**
 * The level of a probability.
 * @param {number} probability
 * @returns {number} index into LEVELS
 */
export function levelOf(probability) {
  return LEVELS.findIndex(({ least }) => probability >= least);
}

/**
 * A probability: "97 %", "0.2 %", "<0.1 %".
 * @param {number} probability
 * @returns {string}
 */
export function percent(probability) {
  const value = probability * 100;
  if (value > 0 && value < 0.1) return "<0.1 %";
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)} %`;
}

/**
 * The words of an answer with the certainty of each. A word begins where a token begins with
 * white space, and after one that ends with a line.
 * @param {{token: string, logprob: number, bytes: ?number[], top_logprobs: object[]}[]} logprobs
 * @returns {Word[]}
 */
export function wordsOf(logprobs) {
  const words = [];
  let open = null;
  for (const token of pieces(logprobs)) {
    if (open === null || /^\s/u.test(token.text) || /\n$/u.test(open.text)) {
      open = { text: "", probability: 1, level: 0, tokens: [] };
      words.push(open);
    }
    open.text += token.text;
    open.tokens.push(token);
    open.probability = Math.min(open.probability, token.probability);
    open.level = levelOf(open.probability);
  }
  return words;
}

// Tokens as texts. Characters that several tokens make are put together by their bytes.
function pieces(logprobs) {
  const found = [];
  const decoder = new TextDecoder("utf-8");
  for (const entry of logprobs ?? []) {
    const bytes = entry.bytes ?? new TextEncoder().encode(entry.token ?? "");
    found.push({
      text: decoder.decode(new Uint8Array(bytes), { stream: true }),
      probability: Math.exp(Math.min(0, entry.logprob)),
      others: (entry.top_logprobs ?? []).map((other) => ({
        text: other.token,
        probability: Math.exp(Math.min(0, other.logprob)),
      })),
    });
  }
  if (found.length > 0) found[found.length - 1].text += decoder.decode();
  return found;
}

/**
 * A token as it is read where white space cannot be seen.
 * @param {string} text
 * @returns {string}
 */
export function visible(text) {
  if (text === "") return "(nothing)";
  return text.replace(/\n/gu, "⏎").replace(/\t/gu, "⇥").replace(/^ | $/gu, "␣");
}

/**
 * What a screen reader says of a word: its certainty, and what else it could have been.
 * @param {Word} word
 * @returns {string}
 */
export function spoken(word) {
  const doubted = word.tokens.reduce((a, b) => (b.probability < a.probability ? b : a));
  const others = doubted.others.filter(({ text }) => text !== doubted.text).slice(0, 3);
  const said = others.map(({ text, probability }) => `${visible(text)} ${percent(probability)}`);
  const sure = `${percent(word.probability)} ${LEVELS[word.level].words}`;
  return said.length ? `${sure}; instead: ${said.join(", ")}` : sure;
}
