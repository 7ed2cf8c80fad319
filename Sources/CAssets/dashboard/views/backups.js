// Where backups are kept, and the points that lie there: each chain a row from its full backup to its newest increment.

import { h } from "../core/dom.js";
import { list } from "../core/api.js";
import { ago, bytes, count, moment } from "../core/format.js";
import { address, link } from "../core/router.js";
import { store } from "../core/store.js";
import { curlButton } from "../components/curl.js";
import { panel } from "../components/panel.js";
import { badge, button, empty, facts, problemBox } from "../components/parts.js";
import { icon } from "../components/icons.js";
import * as act from "../actions/backups.js";

const MOST_POINTS = 5000;
const MOST_CHAINS = 40;

export function backups(redraw) {
  const points = new Points(redraw);
  return {
    title: "Backups",
    event: (event) => event.type.startsWith("backup.") && points.readSoon(),
    stop: () => points.stop(),
    render: () => render(points),
  };
}

/// Of the target that is looked at.
class Points {
  constructor(redraw) {
    this.redraw = redraw;
  }

  show(target) {
    if (this.target !== target) {
      Object.assign(this, { target, items: null, problem: null, selected: null });
      if (target) this.read();
    }
  }

  stop() {
    clearTimeout(this.timer);
  }

  readSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), 300);
  }

  async read() {
    const { target } = this;
    try {
      const { items, next } = await list(`/v1/targets/${target}/backups`, { most: MOST_POINTS });
      if (this.target !== target) return;
      Object.assign(this, { items, isCut: next !== null, problem: null });
    } catch (problem) {
      if (this.target === target) this.problem = problem;
    }
    this.redraw();
  }
}

function render(points) {
  const names = [...store.targets.keys()].sort();
  const { target: wanted, text = "" } = address().query;
  const target = store.targets.get(wanted) ?? store.targets.get(names[0]);
  points.show(target?.name);
  return h("div", { class: "page" },
    h("div", { class: "page-head" }, h("h1", null, "Backups"), h("span", { class: "spacer" }),
      names.length ? button("Back up a disk …", () => act.backUp(null, target?.name), "primary") : null,
      button([icon("plus"), "New target"], act.addTarget, names.length ? "" : "primary"), curlButton("GET", "/v1/targets")),
    target ? [
      h("ul", { class: "targets", "aria-label": "Targets" },
        names.map((name) => targetCard(store.targets.get(name), name === target.name)),
      ),
      panel(`Points on ${target.name}`, { key: "points", wide: true, source: ["GET", `/v1/targets/${target.name}/backups`], actions: [
        button("Verify …", () => act.verify(target), "quiet"), button(
          "Prune …",
          () => act.pruneTarget(target),
          "quiet",
        ),
        button("Forget the target …", () => act.removeTarget(target), "danger-quiet")] }, content(points, text)),
    ] : !store.seesTargets ? empty("This token is for some devices only and does not see where backups are kept.") : empty("There is no place for backups yet: a folder beneath a root will do.", button("Make one", act.addTarget, "primary")));
}

function targetCard(target, isShown) {
  const reach = target.conditions.find((condition) => condition.type === "Reachable");
  return h("li", { key: target.name },
    h("a", { class: "target", href: link(["backups"], { target: target.name }), "aria-current": isShown ? "true" : null },
      h("strong", null, target.name), reach?.status === "False"
        ? badge("not reachable", "bad")
        : badge("reachable", "good"),
      h("span", { class: "hint clip" }, target.path ?? target.uri),
      h("span", null, target.usage ? `${count(target.usage.backups)} backups, ${bytes(target.usage.bytes)}` : "not known what lies there")));
}

function content(points, text) {
  if (points.problem) return problemBox(points.problem);
  if (!points.items) return h("p", { class: "hint" }, "Reading …");
  if (!points.items.length) return empty("No backup lies here yet.");
  const chains = chainsOf(points.items.filter((point) => point.device.includes(text)));
  return [
    h("ul", { class: "backup-chains" }, chains.slice(0, MOST_CHAINS).map((chain) => chainRow(chain, points))),
    chains.length > MOST_CHAINS ? h("p", { class: "hint" }, `and ${chains.length - MOST_CHAINS} more chains`) : null,
    points.isCut ? h("p", { class: "hint" }, `Only the first ${MOST_POINTS} points are shown.`) : null,
  ];
}

/// The newest first, the points of each in their order.
function chainsOf(items) {
  const chains = new Map();
  for (const point of items) {
    const key = `${point.device} ${point.chain}`;
    if (!chains.has(key)) chains.set(key, []);
    chains.get(key).push(point);
  }
  for (const chain of chains.values()) chain.sort(
    (one, other) => one.chain_length - other.chain_length || (one.id < other.id ? -1 : 1)
  );
  return [...chains.values()].sort((one, other) => (one.at(-1).id < other.at(-1).id ? 1 : -1));
}

function chainRow(chain, points) {
  const selected = chain.find((point) => point.id === points.selected);
  return h("li", { key: `${chain[0].device}-${chain[0].chain}` },
    h("div", { class: "backup-head" }, h("h3", null, chain[0].device),
      h("span", { class: "hint" }, `${chain.length} ${chain.length === 1 ? "point" : "points"}, ${bytes(chain.reduce((sum, point) => sum + point.disk_bytes, 0))}`)),
    h("ol", { class: "points", "aria-label": `Points of ${chain[0].device}, oldest first` }, chain.map((point) => h("li", { key: point.id },
      h("button", {
        type: "button", class: `point ${point.state}`, "aria-pressed": String(point === selected),
        "aria-label": `${point.mode ?? point.state} backup of ${point.device}, ${moment(point.point_in_time)}`,
        onclick: () => {
          points.selected = point === selected ? null : point.id;
          points.redraw();
        },
      },
      h("span", { class: "point-mode" },
        point.state === "complete" ? point.mode : point.state.replaceAll("_", " "),
        point.verified_at ? icon("ok") : null,
      ),
      h("span", { class: "point-time" }, point.point_in_time ? ago(point.point_in_time) : "–"),
      h("span", { class: "hint" }, bytes(point.disk_bytes)))))),
    selected ? pointDetail(selected, points) : null);
}

function pointDetail(point, points) {
  const isWhole = point.state === "complete";
  return h("div", { class: "point-detail", key: `detail-${point.id}` },
    point.reason ? h("p", { class: "warn-text" }, point.reason) : null,
    facts([
      ["As it was at", moment(point.point_in_time)], ["Disk", bytes(point.size)], ["Stored", bytes(point.stored_bytes)],
      ["Verified", point.verified_at ? ago(point.verified_at) : "never"], ["Id", h("code", null, point.id)],
      point.snapshot && ["Snapshot", h("code", null, point.snapshot)],
    ]),
    h("div", { class: "buttons" },
      isWhole ? button("Restore …", () => act.restore(point), "primary") : null,
      isWhole && point.descriptor ? button("Open for reading …", () => act.openPoint(point)) : null,
      button("Verify …", () => act.verify(store.targets.get(point.target), point)),
      button("Remove …", () => act.removePoint(point, points.items, () => points.read()), "danger-quiet")));
}
