/** Times and excerpts as text. */

import { h } from "../core/dom.js";

const MINUTE = 60,
  HOUR = 3600,
  DAY = 86_400;
const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const long = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  year: "numeric",
});
const weekday = new Intl.DateTimeFormat(undefined, {
  weekday: "long",
  day: "numeric",
  month: "long",
});
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** How long ago, in a word: `now`, `5 min`, `3 h`, `2 days`, then the date. Seconds since 1970. */
export function ageOf(time, now = Date.now() / 1000) {
  const age = now - time;
  if (age < MINUTE) return "now";
  if (age < HOUR) return `${Math.floor(age / MINUTE)} min`;
  if (age < DAY) return `${Math.floor(age / HOUR)} h`;
  if (age < 7 * DAY) return age < 2 * DAY ? "1 day" : `${Math.floor(age / DAY)} days`;
  return (
    new Date(time * 1000).getFullYear() === new Date(now * 1000).getFullYear() ? short : long
  ).format(time * 1000);
}

/** The day of a time: Today, Yesterday, or its date. */
export function dayOf(time, now = Date.now() / 1000) {
  const day = (seconds) => new Date(seconds * 1000).setHours(0, 0, 0, 0);
  const days = Math.round((day(now) - day(time)) / (DAY * 1000));
  if (days < 2) return days < 1 ? "Today" : "Yesterday";
  return (days < 300 ? weekday : long).format(time * 1000);
}

/** An element with the age of a time; the exact time is its title. */
export function timeElement(time) {
  const date = new Date(time * 1000);
  return h("time", { datetime: date.toISOString(), title: exact.format(date) }, ageOf(time));
}

/** A text in which ranges are marked: half-open, in code points, as the server counts. */
export function marked(text, ranges) {
  const points = Array.from(text);
  const out = [];
  let at = 0;
  for (const [first, end] of ranges) {
    out.push(points.slice(at, first).join(""), h("mark", {}, points.slice(first, end).join("")));
    at = end;
  }
  out.push(points.slice(at).join(""));
  return out;
}

/** Whether there is a word to search for. */
export const hasWord = (text) =>
  /[\p{L}\p{N}\p{Extended_Pictographic}]/u.test(text.replace(/(^|\s)OR(?=\s|$)/g, " "));

/** What a search for words is sent as: the word that is being written may go on. */
export function wordsQuery(text) {
  return /[\p{L}\p{N}]{2}$/u.test(text) && !text.includes('"') && !/(^|\s)OR$/.test(text)
    ? `${text}*`
    : text;
}
