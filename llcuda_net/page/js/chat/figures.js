/** Figures, times and places as people read them. Pure functions. */

/**
 * A duration: "12 ms", "1.4 s", "2 min 5 s", "1 h 3 min".
 * @param {number} ms milliseconds
 * @returns {string}
 */
export function duration(ms) {
  if (!Number.isFinite(ms) || ms < 0) return "";
  if (ms < 1) return "<1 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/**
 * A number with a unit: "1 token", "1,234 tokens".
 * @param {number} count
 * @param {string} unit its singular
 * @returns {string}
 */
export function counted(count, unit) {
  return `${count.toLocaleString("en")} ${unit}${count === 1 ? "" : "s"}`;
}

/**
 * A rate: "7.3 tokens/s", "1,450 tokens/s".
 * @param {?number} rate null: not known
 * @returns {string}
 */
export function rateText(rate) {
  if (!(rate > 0)) return "";
  const text = rate < 100 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en");
  return `${text} tokens/s`;
}

// In the order in which they happen. `first_token` holds `prompt`: what is left is the wait.
const PHASES = [
  ["queue", "waiting in the queue"],
  ["template", "making the prompt"],
  ["connect", "connecting"],
  ["prompt", "reading the prompt"],
  ["first_token", "up to the first token"],
  ["generation", "writing"],
  ["persist", "storing"],
];

/**
 * Where the time of an answer went, in the order of time; parts do not overlap.
 * @param {?object} timings milliseconds by phase, as the server has them
 * @returns {{phase: string, words: string, ms: number, share: number}[]}
 */
export function phasesOf(timings) {
  if (!timings) return [];
  const ms = { ...timings };
  if (ms.prompt && ms.first_token) ms.first_token = Math.max(0, ms.first_token - ms.prompt);
  const found = PHASES.filter(([phase]) => ms[phase] > 0);
  const total = Math.max(
    ms.total ?? 0,
    found.reduce((sum, [phase]) => sum + ms[phase], 0),
  );
  return found.map(([phase, words]) => ({ phase, words, ms: ms[phase], share: ms[phase] / total }));
}

/**
 * When something was: "14:05" today, "29 Nov, 14:05" this year, else with the year.
 * @param {number} seconds since 1970
 * @param {Date} now
 * @returns {string}
 */
export function timeText(seconds, now = new Date()) {
  const at = new Date(seconds * 1000);
  const hours = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === now.toDateString()) return hours;
  const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return `${at.toLocaleDateString([], { day: "numeric", month: "short", ...year })}, ${hours}`;
}

/**
 * What the reader of an answer that has not begun is told: its place, the estimate, the reason.
 * @param {?object} run as the live stream has it; null: nothing is known yet
 * @returns {string} empty where there is nothing to say
 */
export function waitingText(run) {
  if (!run || run.phase === "keeping") return "Asked…";
  if (run.phase === "answer") return "";
  if (run.phase === "prompt") return "The model reads the conversation…";
  const { position, of, wait, reason } = run.queue ?? {};
  const parts = [];
  if (position > 0)
    parts.push(of > 1 ? `Number ${position} of ${of} in the queue` : "Next in the queue");
  if (wait > 0)
    parts.push(`about ${duration(Math.max(1, Math.round(wait)) * 1000)}`.replace(".0 s", " s"));
  const text = parts.join(", ") || "Waiting for a free slot";
  return reason ? `${text}: ${reason}` : `${text}…`;
}
