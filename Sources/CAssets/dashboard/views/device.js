// One disk: its chain, its snapshots, where its bytes lie, how busy it is, and who uses it.

import { h } from "../core/dom.js";
import { ago, bytes, count, percent, shortID } from "../core/format.js";
import { link } from "../core/router.js";
import { store } from "../core/store.js";
import { blockMap } from "../components/blockmap.js";
import { chainDiagram } from "../components/chain.js";
import { copy } from "../components/curl.js";
import { panel } from "../components/panel.js";
import { badge, button, empty, facts, iconButton, problemBox } from "../components/parts.js";
import { icon } from "../components/icons.js";
import { jobLink, jobPace, jobProgress } from "../components/jobrow.js";
import { troubles } from "../components/troubles.js";
import { snapshotName, snapshotTree } from "../components/tree.js";
import { jobButtons } from "../actions/jobs.js";
import * as act from "../actions/devices.js";
import { copyOut } from "../actions/copies.js";
import { backUp } from "../actions/backups.js";
import { DeviceParts } from "./deviceparts.js";
import { deviceFigures } from "./devicefigures.js";

export function devicePage(id, redraw) {
  const parts = new DeviceParts(id, redraw);
  let map = null;
  return {
    title: id,
    event: (event) => parts.event(event),
    stop: () => parts.stop(),
    render: () => {
      const device = store.devices.get(id);
      if (!device) return gone(id);
      map = parts.runs && device.size ? blockMap(device, parts.runs, parts.dirty, parts.isCut) : null;
      return page(device, parts, map);
    },
    drawn: () => {
      const canvas = document.querySelector("canvas.map");
      if (canvas && map) {
        canvas.setAttribute(
          "aria-label",
          map.node.querySelector("canvas")?.getAttribute("aria-label") ?? canvas.getAttribute("aria-label"),
        );
        map.draw(canvas);
      }
    },
  };
}

const gone = (id) => h("div", { class: "page" }, h("div", { class: "page-head" }, h("h1", null, id)),
  empty("There is no such device, or not any more.", h("a", { href: link(["devices"]) }, "All devices")));

function page(device, parts, map) {
  const path = `/v1/devices/${device.id}`;
  return h("div", { class: "page", key: `device-${device.id}` },
    h("div", { class: "page-head" },
      h("h1", null, h("a", { class: "up", href: link(["devices"]) }, "Devices"), " / ", device.id), badge(device.state),
      device.readonly ? badge("read only", "calm") : null, h("span", { class: "spacer" }), buttons(device)),
    parts.problem ? problemBox(parts.problem) : null,
    conditions(device),
    h("div", { class: "grid pairs" },
      panel("Disk", { source: ["GET", path] }, diskFacts(device)),
      panel(
        "Doors",
        {
          source: ["GET", "/v1/exports"],
          actions: iconButton("plus", "Open another export", () => act.addExport(device), "quiet"),
        },
        doors(device),
      ),
      panel("Chain", { source: ["GET", `${path}/deltas`], wide: true }, chainDiagram(device, names(parts.snapshots))),
      panel("Snapshots", { source: ["GET", `${path}/snapshots`], wide: true, actions: device.readonly ? null : [
        button("Take a snapshot", () => act.takeSnapshot(device)),
        parts.snapshots?.length ? button("Prune …", () => act.pruneSnapshots(device), "quiet") : null] },
      snapshots(device, parts)),
      panel(
        "Where its bytes lie",
        { source: ["GET", `${path}/map`], wide: true },
        map ? map.node : h("p", { class: "hint" }, "Reading …"),
        checkpoints(device, parts),
      ),
      panel("Requests", { source: ["GET", `${path}/stats`], wide: true }, deviceFigures(device, parts)),
      panel("Jobs", { source: ["GET", `/v1/jobs?device=${device.id}`], wide: true }, jobs(device))));
}

const names = (snapshots) => new Map((snapshots ?? []).map((snapshot) => [snapshot.uuid, snapshotName(snapshot)]));

function snapshots(device, parts) {
  if (parts.snapshots?.length) return snapshotTree(parts.snapshots, (snapshot) => snapshotButtons(device, snapshot));
  return h("p", { class: "hint" }, parts.snapshots ? "There is none." : "Reading …");
}

function buttons(device) {
  return h("div", { class: "buttons" },
    device.readonly ? null : button([icon("plus"), "Snapshot"], () => act.takeSnapshot(device), "primary"),
    button("Back up …", () => backUp(device)),
    device.readonly || device.deltas.length < 2 ? null : button("Merge …", () => act.merge(device)),
    button("Clone …", () => act.clone(device)),
    button("Copy out …", () => copyOut(device)),
    device.readonly ? null : button("Enlarge …", () => act.grow(device)),
    device.readonly
      ? null
      : button("Compact …", () => act.work(device, "compact", "The newest file becomes smaller while guests use it.")),
    button(
      "Check …",
      () => act.work(device, "check", "Header and index of every image of the chain are read; nothing is changed."),
    ),
    device.suspended
      ? button("Resume", () => act.setSuspended(device, false))
      : button("Suspend", () => act.setSuspended(device, true)),
    button("Detach …", () => act.detach(device), "danger-quiet"));
}

function conditions(device) {
  const holding = troubles(device);
  const lines = [
    ...holding.map((condition) => [condition.type, condition.message]),
    ...(
      device.suspension
        ? [[
          "Suspended",
          `by ${device.suspension.holder} since ${ago(device.suspension.since)}${device.suspension.resumes_at ? `; it goes on by itself at ${device.suspension.resumes_at.slice(11, 19)} UTC` : ""}`,
        ]]
        : []
    ),
    ...(device.prohibition ? [["Not to be resumed", `says ${device.prohibition.holder}`]] : []),
    ...(device.maintenance ? [["At work", `${device.maintenance.kind} ${device.maintenance.id}`]] : []),
  ];
  return lines.length
    ? h("ul", { class: "conditions" },
      lines.map(([type, message]) => h("li", { key: type }, icon("warn"), h("strong", null, type), " ", message)),
    )
    : null;
}

function diskFacts(device) {
  const onDisk = device.deltas.reduce((sum, delta) => sum + delta.disk_bytes, 0);
  return facts([
    ["Size", bytes(device.size)],
    ["On disk", bytes(onDisk)],
    [
      "Mapped",
      `${percent(device.clusters.mapped, device.clusters.total)} of ${count(device.clusters.total)} clusters of ${bytes(device.cluster_size)}`,
    ],
    ["Format", `version ${device.version}`],
    ["Source", h("code", null, device.source.path ?? "a list of deltas")],
    device.source.at && ["At", h("code", null, shortID(device.source.at))],
    Object.keys(device.labels).length && [
      "Labels",
      Object.entries(device.labels).map(([name, value]) => badge(`${name}=${value}`, "calm")),
    ],
    ["Attached", ago(device.created_at)],
  ]);
}

function doors(device) {
  if (!device.exports.length) return h("p", { class: "hint" }, "No export: nobody can use it.");
  return h("ul", { class: "doors" }, device.exports.map((door) => h("li", { key: door.name },
    h("div", { class: "door-head" }, h("strong", null, door.name), door.readonly ? badge("read only", "calm") : badge("writable", "good"),
      door.snapshot ? badge(`snapshot ${shortID(door.snapshot)}`, "calm") : null, h("span", { class: "spacer" }),
      iconButton("cross", `Close the export ${door.name}`, () => act.closeExport(door), "quiet")),
    door.uris.map(
      (uri) => h("div", { class: "uri" },
        h("code", null, uri),
        iconButton("copy", `Copy ${uri}`, () => copy(uri, "The address"), "quiet small"),
      )
    ),
    door.clients.map(
      (client) => h("p", { class: "hint", key: `client-${client.id}` },
        `${client.peer}, since ${ago(client.since)}, sent ${bytes(client.rx_bytes)}, was sent ${bytes(client.tx_bytes)}`,
      )
    ),
    door.clients.length ? null : h("p", { class: "hint" }, "nobody is connected"))));
}

function snapshotButtons(device, snapshot) {
  const name = snapshotName(snapshot);
  return [
    h("button",
      { type: "button", class: "small", "aria-label": `Clone ${name}`, onclick: () => act.clone(device, snapshot) },
      "Clone",
    ),
    h("button",
      {
        type: "button",
        class: "small",
        "aria-label": `Export ${name}`,
        onclick: () => act.addExport(device, snapshot),
      },
      "Export",
    ),
    device.readonly
      ? null
      : h("button",
        {
          type: "button",
          class: "small",
          "aria-label": `${snapshot.protected ? "Unprotect" : "Protect"} ${name}`,
          onclick: () => act.setProtected(device, snapshot, !snapshot.protected),
        },
        snapshot.protected ? "Unprotect" : "Protect",
      ),
    device.readonly
      ? null
      : h("button",
        {
          type: "button",
          class: "small",
          "aria-label": `Go back to ${name}`,
          onclick: () => act.switchTo(device, snapshot),
        },
        "Go back …",
      ),
    device.readonly || !snapshot.in_chain
      ? null
      : h("button",
        { type: "button", class: "small", "aria-label": `Merge ${name}`, onclick: () => act.merge(device, snapshot) },
        "Merge …",
      ),
    device.readonly ? null : h("button", {
      type: "button",
      class: "small danger-quiet",
      "aria-label": `Delete ${name}`,
      disabled: !snapshot.deletable,
      title: snapshot.deletable_reason,
      onclick: () => act.deleteSnapshot(device, snapshot),
    }, "Delete …"),
  ];
}

function checkpoints(device, parts) {
  if (!parts.checkpoints.length) return null;
  return h("div", { class: "chips", role: "group", "aria-label": "What was written since" },
    h("span", { class: "hint" }, "Mark what was written since"),
    parts.checkpoints.map((checkpoint) => h("button", {
      type: "button", class: "chip", key: checkpoint.name, "aria-pressed": String(parts.since === checkpoint.name),
      onclick: () => parts.mark(parts.since === checkpoint.name ? null : checkpoint.name),
    }, checkpoint.name, h("span", { class: "chip-count" }, checkpoint.consistent ? bytes(checkpoint.dirty_bytes) : "inconsistent"))));
}

function jobs(device) {
  const own = [...store.jobs.values()].filter((job) => job.device === device.id).sort(
    (one, other) => (one.id < other.id ? 1 : -1)
  );
  if (!own.length) return h("p", { class: "hint" }, "There was none lately.");
  return [
    h("ul", { class: "running" }, own.slice(0, 8).map((job) => h("li", { key: job.id },
      h("span", { class: "running-name" }, jobLink(job)), badge(job.state), jobProgress(job), jobPace(job), h("span", { class: "row-actions" }, jobButtons(job))))),
    own.length > 8 ? h("p", null, h("a", { href: link(["jobs"], { device: device.id }) }, "all of them")) : null,
  ];
}
