// Signs, 16 by 16, as paths; words beside or behind them say what they mean.

import { s } from "../core/dom.js";

const PATHS = {
  pause: "M5 3v10M11 3v10",
  play: "M5 3l8 5-8 5z",
  cross: "M4 4l8 8M12 4l-8 8",
  retry: "M13 8a5 5 0 1 1-1.5-3.5M13 2v3h-3",
  speed: "M2 12a6 6 0 1 1 12 0M8 12l3-4",
  log: "M3 4h10M3 8h10M3 12h6",
  shell: "M3 4l4 4-4 4M8 12h5",
  copy: "M6 6h7v7H6zM3 10V3h7",
  plus: "M8 3v10M3 8h10",
  menu: "M3 4h10M3 8h10M3 12h10",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.5 1.5M11.500 11.500 13 13M13 3l-1.500 1.500M4.500 11.500 3 13",
  dark: "M13 9.500A5.500 5.500 0 0 1 6.500 3a5.500 5.500 0 1 0 6.500 6.500z",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  warn: "M8 2.500 14.500 13.500h-13zM8 7v3M8 11.700v.3",
  ok: "M3 8.500l3.500 3.500L13 5",
  lock: "M4 7.500h8v6H4zM5.500 7.500V5a2.500 2.500 0 0 1 5 0v2.500",
  up: "M4 10l4-4 4 4",
  down: "M4 6l4 4 4-4",
};

export function icon(name) {
  return s("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    s("path", { d: PATHS[name] }),
  );
}
