// What has happened, as it happens.

import { h } from "../core/dom.js";
import { moment } from "../core/format.js";
import { address, link, refine } from "../core/router.js";
import { store } from "../core/store.js";
import { curlButton } from "../components/curl.js";
import { chips, empty } from "../components/parts.js";
import { VirtualTable } from "../components/table.js";

const KINDS = ["device", "export", "snapshot", "job", "backup", "target", "checkpoint"];

export function events(redraw) {
  const table = new VirtualTable({
    label: "Events", key: (event) => event.revision, redraw,
    columns: [
      {
        name: "at",
        label: "When",
        cell: (event) => h("time", { datetime: event.at, class: "nowrap" }, moment(event.at)),
      },
      { name: "type", label: "What", cell: (event) => h("code", null, event.type) },
      { name: "subject", label: "Of", cell: subject, grow: true },
      {
        name: "device",
        label: "Device",
        cell: (event) => (event.device ? h("a", { href: link(["devices", event.device]) }, event.device) : "–"),
        wide: true,
      },
      { name: "actor", label: "By", cell: (event) => event.actor ?? "the service", wide: true },
      { name: "revision", label: "Revision", cell: (event) => String(event.revision), align: "right", wide: true },
    ],
  });
  return { title: "Events", render: () => render(table) };
}

function subject(event) {
  const kind = event.type.split(".")[0];
  if (kind === "job") return h("a", { class: "clip", href: link(["jobs", event.subject]) },
    event.object ? `${event.object.type} ${event.object.state}` : event.subject,
  );
  if (kind === "device") return h("a", { class: "clip", href: link(["devices", event.subject]) }, event.subject);
  return h("span", { class: "clip" }, event.subject);
}

function render(table) {
  const { kind = "", text = "" } = address().query;
  const shown = store.events.filter(
    (event) => (!kind || event.type.startsWith(`${kind}.`)) && (
      !text || `${event.subject} ${event.device ?? ""} ${event.actor ?? ""}`.includes(text)
    )
  );
  return h("div", { class: "page" },
    h("div", { class: "page-head" },
      h("h1", null, "Events"),
      h("span", { class: "spacer" }),
      curlButton("GET", "/v1/events"),
    ),
    h("div", { class: "filters" },
      chips("Kind", "kind", [["", "all"], ...KINDS.map((name) => [name, name])], kind),
      h("label", { class: "search" }, h("span", { class: "hidden" }, "Find events"),
        h("input", { type: "search", placeholder: "Find by device, subject or actor", value: text, oninput: (event) => refine({ text: event.target.value }) }))),
    shown.length ? table.render(shown, `${shown.length} events, the newest first`) : empty("Nothing has happened that is known here."));
}
