/** Figures as people read them. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A count, or "–" where it is not known. */
export const count = (value) => (Number.isFinite(value) ? WHOLE.format(value) : "–");

/** A speed or another figure that may be small. */
export function figure(value) {
  if (!Number.isFinite(value)) return "–";
  return (Math.abs(value) < 100 ? TENTHS : WHOLE).format(value);
}

/** Bytes, in units of 1024: "12.3 MiB". */
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1023.5 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 ? WHOLE.format(value) : figure(value)} ${units[at]}`;
}

/** A length of time in seconds, with two units at most: "3 m 12 s". */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${TENTHS.format(seconds)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} m`;
  return `${WHOLE.format(Math.floor(whole / 86_400))} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Milliseconds: "850 ms", "3.4 s". */
export function milliseconds(ms) {
  if (!Number.isFinite(ms)) return "–";
  return ms < 1000 ? `${figure(ms)} ms` : span(ms / 1000);
}

/** The time of day of a moment in seconds since 1970; with the day, where it is another one. */
export function clock(at) {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString();
  return date.toDateString() === new Date().toDateString()
    ? time
    : `${date.toLocaleDateString()} ${time}`;
}

/** "1 slot", "2 slots". */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
