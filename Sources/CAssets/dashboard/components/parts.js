// Small parts that every view is made of.

import { h } from "../core/dom.js";
import { link, refine } from "../core/router.js";
import { icon } from "./icons.js";

export function iconButton(name, label, onclick, style = "", more = {}) {
  return h("button",
    { type: "button", class: `icon-button ${style}`, "aria-label": label, title: label, onclick, ...more },
    icon(name),
  );
}

export function button(text, onclick, style = "", more = {}) {
  return h("button", { type: "button", class: style, onclick, ...more }, text);
}

const TONES = {
  online: "good", ok: "good", succeeded: "good", complete: "good", ready: "good", used: "good", True: "good",
  running: "busy", attaching: "busy", detaching: "busy", cancelling: "busy", queued: "calm", paused: "calm",
  suspended: "warn", degraded: "warn", partial: "warn", missing_parent: "warn", orphaned: "warn", unknown: "warn",
  failed: "bad", damaged: "bad", cancelled: "calm",
};

export function badge(text, tone) {
  return h("span", { class: `badge ${tone ?? TONES[text] ?? "calm"}` }, text.replaceAll("_", " "));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, ...value]) =>
    h("div", null, h("dt", null, name), h("dd", null, value))));
}

export function empty(text, ...more) {
  return h("div", { class: "empty" }, h("p", null, text), more);
}

export const deviceLink = (id) => h("a", { href: link(["devices", id]) }, id);

/// Choices of which one holds; it stands in the address.
export function chips(label, name, choices, current) {
  return h("div", { class: "chips", role: "group", "aria-label": label }, choices.map(([value, text, count]) =>
    h("button", {
      type: "button", class: "chip", key: value || "all", "aria-pressed": String((current ?? "") === value),
      onclick: () => refine({ [name]: value }),
    }, text, count === undefined ? null : h("span", { class: "chip-count" }, String(count)))));
}

export function meter(share, label, tone = "") {
  const percent = Math.max(0, Math.min(100, share * 100));
  return h("div", {
    class: `meter ${tone}`, role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-valuenow": String(Math.round(percent)),
  }, h("div", { class: "meter-fill", style: { width: `${percent}%` } }));
}

/// Says something, and goes away by itself; what is wrong stays longer.
export function toast(text, tone = "") {
  const node = h("div", { class: `toast ${tone}` }, text);
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), tone ? 10_000 : 4000);
}

/// A problem as the service tells it, with what to do about it.
export function problemBox(problem) {
  const { title, detail, cause, remedy, holder, code } = problem.facts ?? { title: problem.message };
  return h("div", { class: "problem", role: "alert" },
    h("strong", null, icon("warn"), title ?? "It did not work"),
    detail && detail !== title ? h("p", null, detail) : null,
    cause ? h("p", null, "Cause: ", cause) : null,
    holder ? h("p", null, `In the way: ${holder.kind} ${holder.id}`) : null,
    remedy ? h("p", { class: "remedy" }, "What to do: ", remedy) : null,
    code ? h("p", { class: "hint" }, h("a", { href: `/problems/${code}` }, h("code", null, code))) : null);
}
