// What a job would do, as its dry run says.

import { h } from "../core/dom.js";
import { bytes, count, duration } from "../core/format.js";
import { facts } from "./parts.js";

export function planTable(plan) {
  const room = plan.space_free_bytes !== null && plan.space_needed_bytes > plan.space_free_bytes;
  return h("section", { class: "plan", "aria-label": "The plan" },
    h("h3", null, "What will happen"),
    facts([
      ["To copy", `${bytes(plan.bytes_to_copy)} in ${count(plan.clusters_to_copy)} clusters`],
      [
        "Room it takes",
        bytes(plan.space_needed_bytes),
        room ? h("strong", { class: "bad-text" }, " more than is free") : null,
      ],
      plan.space_free_bytes !== null && ["Free", bytes(plan.space_free_bytes)],
      plan.estimated_seconds !== null && ["Takes about", duration(plan.estimated_seconds)],
      plan.direction && ["Direction", plan.direction],
      plan.mode && ["Mode", plan.mode],
      plan.reason && ["Because", plan.reason],
    ]),
    plan.blockers.length ? h("div", null, h("h4", null, "It waits for"), h("ul", null, plan.blockers.map((blocker) =>
      h("li", null, `${blocker.kind.replaceAll("_", " ")}: ${blocker.detail}`)))) : null,
    plan.removes ? h("div", null, h("h4", null, "Removed for good"), h("ul", { class: "paths" }, plan.removes.map((file) =>
      h("li", null, h("code", null, file.path), " ", bytes(file.disk_bytes))))) : null,
    plan.details ? details(plan.details) : null);
}

/// Of a prune, what stays and what goes; of others the facts by their names.
function details(given) {
  const judged = given.snapshots ?? given.backups;
  if (!Array.isArray(judged)) {
    return facts(Object.entries(given).map(([name, value]) => [
      name.replaceAll("_", " "), typeof value === "object" ? JSON.stringify(value) : String(value)]));
  }
  return h("table", { class: "small" },
    h("thead", null, h("tr", null, ["Point", "Verdict", "Kept by"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", null, judged.map((point) => h("tr", null,
      h("td", null, point.name || point.id || point.uuid), h("td", { class: point.keep ? "" : "bad-text" },
        point.keep ? "stays" : "goes",
      ),
      h("td", null, (point.rules ?? []).join(", ") || "–")))));
}

/// What is said where the service has no dry run: of each thing what becomes of it.
export function sentences(...lines) {
  return h("section", { class: "plan", "aria-label": "The plan" }, h("h3", null, "What will happen"),
    h("ul", null, lines.filter(Boolean).map((line) => h("li", null, line))));
}
