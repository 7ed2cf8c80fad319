// What lies beneath the roots, who needs it, and what nobody does.

import { h } from "../core/dom.js";
import { list, withQuery } from "../core/api.js";
import { ago, bytes, moment } from "../core/format.js";
import { address, link } from "../core/router.js";
import { curlButton } from "../components/curl.js";
import { badge, button, chips, empty, problemBox } from "../components/parts.js";
import { icon } from "../components/icons.js";
import { VirtualTable } from "../components/table.js";
import { clean } from "../actions/backups.js";

const MOST = 10_000;

export function images(redraw) {
  const files = new Files(redraw);
  const chosen = new Set();
  const table = new VirtualTable({
    label: "Images", key: (image) => image.path, redraw, sort: null,
    columns: [
      { name: "choose", label: h("span", { class: "hidden" }, "Choose"), cell: (image) => (image.state === "orphaned" ? h("input", {
        type: "checkbox", "aria-label": `Choose ${image.path}`, checked: chosen.has(image.path),
        onchange: (event) => {
          event.target.checked ? chosen.add(image.path) : chosen.delete(image.path);
          redraw();
        },
      }) : null) },
      {
        name: "path",
        label: "File",
        cell: (image) => h("code", { class: "clip", title: image.path }, image.path),
        sort: (image) => image.path,
        grow: true,
      },
      {
        name: "state",
        label: "State",
        cell: (image) => h("span", { title: image.reason }, badge(image.state)),
        sort: (image) => image.state,
      },
      { name: "kind", label: "What", cell: what, wide: true },
      {
        name: "disk",
        label: "On disk",
        cell: (image) => bytes(image.disk_bytes),
        sort: (image) => image.disk_bytes,
        align: "right",
        down: true,
      },
      { name: "used", label: "Used by", cell: users, wide: true },
      {
        name: "mtime",
        label: "Changed",
        cell: (image) => h("time", { datetime: image.mtime, title: moment(image.mtime) }, ago(image.mtime)),
        sort: (image) => image.mtime,
        down: true,
        wide: true,
      },
    ],
  });
  return {
    title: "Images",
    event: (event) => /^(device\.(created|deleted)|backup|target|snapshot)/.test(event.type) || (
      event.type === "job.state" && event.object?.finished_at
    ) ? files.readSoon() : null,
    stop: () => files.stop(),
    render: () => render(files, table, chosen),
  };
}

class Files {
  items = null;

  constructor(redraw) {
    this.redraw = redraw;
  }

  show(state) {
    if (this.state === state) return;
    this.state = state;
    this.read();
  }

  stop() {
    clearTimeout(this.timer);
  }

  readSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), 1000);
  }

  async read() {
    const { state } = this;
    try {
      const { items, next } = await list(withQuery("/v1/images", { state }), { most: MOST });
      if (state === this.state) Object.assign(this, { items, isCut: next !== null, problem: null });
    } catch (problem) {
      this.problem = problem;
    }
    this.redraw();
  }
}

function what(image) {
  if (image.kind === "descriptor") return "descriptor";
  if (image.kind === "saved_index") return "saved index";
  return h("span", { class: "nowrap" },
    `${image.format ?? "image"}${image.size ? `, ${bytes(image.size)}` : ""}`,
    image.unclean ? [" ", badge("open", "calm")] : null,
  );
}

function users(image) {
  if (!image.used_by.length) return h("span", { class: "clip hint", title: image.reason }, image.reason ?? "–");
  // Whoever serves a file says more than the descriptor that names it.
  const devices = image.used_by.filter((user) => user.kind === "device");
  const users = devices.length ? devices : image.used_by;
  return h("span", { class: "clip" }, users.slice(0, 2).map((user, index) => [
    index ? ", " : "", user.kind === "device" ? h("a", { href: link(["devices", user.id]) }, user.id) : `${user.kind} ${user.id.split("/").at(-1)}`]),
  users.length > 2 ? ` and ${users.length - 2} more` : "");
}

function render(files, table, chosen) {
  const { state = "" } = address().query;
  files.show(state);
  const items = files.items ?? [];
  const orphans = items.filter((image) => image.state === "orphaned");
  const picked = orphans.filter((image) => chosen.has(image.path));
  return h("div", { class: "page" },
    h("div", { class: "page-head" }, h("h1", null, "Images"), h("span", { class: "spacer" }),
      button("Look again", () => files.read(), "quiet"),
      button(
        picked.length ? `Clean ${picked.length} …` : "Clean …",
        () => clean(picked),
        "danger-quiet",
        { disabled: !picked.length },
      ),
      curlButton("GET", withQuery("/v1/images", { state }))),
    h("div", { class: "filters" },
      chips("State", "state", [["", "all"], ["used", "used"], ["orphaned", "orphaned"], ["unknown", "unknown"]], state),
    ),
    orphans.length ? h("ul", { class: "conditions" }, h("li", null, icon("warn"),
      `${orphans.length} ${orphans.length === 1 ? "file" : "files"} of ${bytes(orphans.reduce((sum, image) => sum + image.disk_bytes, 0))} that nobody needs. Choose what is to go; the plan comes first.`)) : null,
    files.problem ? problemBox(files.problem) : null,
    files.problem ? null : items.length ? table.render(items, files.isCut ? `The first ${MOST} files.` : `${items.length} files`) : empty(files.items ? "There is no such file." : "Looking at every folder …"));
}
