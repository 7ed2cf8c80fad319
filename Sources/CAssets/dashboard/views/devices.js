// All disks: filtered, sorted, and quick with a thousand of them.

import { h } from "../core/dom.js";
import { bytes, rate } from "../core/format.js";
import { metrics } from "../core/metrics.js";
import { address, refine } from "../core/router.js";
import { store } from "../core/store.js";
import { curlButton } from "../components/curl.js";
import { badge, button, chips, deviceLink, empty } from "../components/parts.js";
import { icon } from "../components/icons.js";
import { VirtualTable } from "../components/table.js";
import { attachDisk, createDisk } from "../actions/devices.js";
import { importDisk } from "../actions/copies.js";

const diskBytes = (device) => device.deltas.reduce((sum, delta) => sum + delta.disk_bytes, 0);
const clients = (device) => device.exports.reduce((sum, door) => sum + door.clients.length, 0);

export function deviceList(redraw) {
  const table = new VirtualTable({
    label: "Devices", key: (device) => device.id, redraw, sort: "id",
    columns: [
      { name: "id", label: "Device", cell: (device) => deviceLink(device.id), sort: (device) => device.id, grow: true },
      { name: "state", label: "State", cell: state, sort: (device) => device.state },
      {
        name: "size",
        label: "Size",
        cell: (device) => bytes(device.size),
        sort: (device) => device.size,
        align: "right",
        down: true,
      },
      {
        name: "disk",
        label: "On disk",
        cell: (device) => bytes(diskBytes(device)),
        sort: diskBytes,
        align: "right",
        down: true,
        wide: true,
      },
      {
        name: "deltas",
        label: "Deltas",
        cell: (device) => device.deltas.length,
        sort: (device) => device.deltas.length,
        align: "right",
        down: true,
        wide: true,
      },
      { name: "clients", label: "Clients", cell: clients, sort: clients, align: "right", down: true, wide: true },
      {
        name: "io",
        label: "I/O",
        cell: (device) => rate(metrics.rates.get(device.id) ?? 0),
        sort: (device) => metrics.rates.get(device.id) ?? 0,
        align: "right",
        down: true,
        wide: true,
      },
      { name: "work", label: "At work", cell: work, wide: true },
    ],
  });
  return { title: "Devices", render: () => render(table) };
}

function state(device) {
  return h("span", { class: "nowrap" },
    badge(device.state),
    device.readonly ? [" ", badge("read only", "calm")] : null,
  );
}

function work(device) {
  if (device.maintenance) return h("span", { class: "clip" }, `${device.maintenance.kind} ${device.maintenance.id}`);
  return device.suspension ? h("span", { class: "clip" }, `suspended by ${device.suspension.holder}`) : "–";
}

function render(table) {
  const { state: wanted = "", text = "" } = address().query;
  const all = [...store.devices.values()];
  const number = (name) => all.filter((device) => fits(device, name)).length;
  const shown = all.filter((device) => fits(device, wanted) && matches(device, text.toLowerCase()));
  return h("div", { class: "page" },
    h("div", { class: "page-head" }, h("h1", null, "Devices"), h("span", { class: "spacer" }),
      button([icon("plus"), "New disk"], createDisk, "primary"), button("Attach a disk", attachDisk), button("Import …", importDisk), curlButton("GET", "/v1/devices")),
    h("div", { class: "filters" },
      chips(
        "State",
        "state",
        [
          ["", "all", all.length],
          ["online", "online", number("online")],
          ["suspended", "suspended", number("suspended")],
          ["bad", "not well", number("bad")],
        ],
        wanted,
      ),
      h("label", { class: "search" }, h("span", { class: "hidden" }, "Find a device"),
        h("input", { type: "search", placeholder: "Find by id or label", value: text, oninput: (event) => refine({ text: event.target.value }) }))),
    all.length ? table.render(shown, shown.length === all.length ? null : `${shown.length} of ${all.length}`)
      : empty("There is no disk yet.", button("Make the first one", createDisk, "primary")));
}

function fits(device, wanted) {
  return !wanted || device.state === wanted || (wanted === "bad" && ["failed", "degraded"].includes(device.state));
}

function matches(device, text) {
  return !text || device.id.includes(text) || Object.entries(device.labels).some(
    (pair) => pair.join("=").toLowerCase().includes(text)
  );
}
