// Figures as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

export const rate = (bps) => (bps === null || bps === undefined ? "–" : `${bytes(bps)}/s`);

export function count(number) {
  return number === null || number === undefined ? "–" : number.toLocaleString("en");
}

export const perSecond = (number) => (number === null ? "–" : `${count(Math.round(number))}/s`);

export function percent(part, whole) {
  if (!whole) return "0 %";
  const value = (100 * part) / whole;
  return `${value >= 10 || value === 0 ? Math.floor(value) : value.toFixed(1)} %`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return "< 1 s";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function latency(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1e3).toFixed(1))} ms`;
  return `${Number(seconds.toFixed(1))} s`;
}

export const secondsSince = (time) => (Date.now() - Date.parse(time)) / 1000;

export function ago(time) {
  if (!time) return "–";
  const seconds = Math.max(0, secondsSince(time));
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const moment = (time) => (time ? time.replace("T", " ").replace(/\.\d+Z$/, " UTC") : "–");
export const clock = (time) => (time ? time.slice(11, 19) : "–");
export const shortID = (guid) => (guid ? guid.replace(/[{}]/g, "").slice(0, 8) : "–");

/// What somebody has typed as a size: 10G, 512 MiB, 1073741824.
export function parseBytes(text) {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*$/i.exec(text);
  if (!match) return null;
  const power = "kmgtp".indexOf(match[2].toLowerCase()) + 1;
  return Math.round(Number(match[1]) * 1024 ** (match[2] ? power : 0));
}
