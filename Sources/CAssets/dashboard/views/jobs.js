// All jobs, the newest first; older ones are read as the list is scrolled.

import { h } from "../core/dom.js";
import { get, withQuery } from "../core/api.js";
import { ago, bytes, moment } from "../core/format.js";
import { address } from "../core/router.js";
import { store } from "../core/store.js";
import { curlButton } from "../components/curl.js";
import { openForm } from "../components/form.js";
import { badge, button, chips, deviceLink, empty } from "../components/parts.js";
import { jobLink, jobPace, jobProgress } from "../components/jobrow.js";
import { VirtualTable } from "../components/table.js";
import { jobButtons, pauseQueue } from "../actions/jobs.js";
import { parseBytes } from "../core/format.js";

const PART = 500;

export function jobList(redraw) {
  const pager = new Pager(redraw);
  const table = new VirtualTable({
    label: "Jobs", key: (job) => job.id, redraw, more: () => pager.more(),
    columns: [
      {
        name: "state",
        label: "State",
        cell: (job) => h("span", { class: "nowrap" },
          badge(job.state),
          job.stalled ? [" ", badge("stalled", "bad")] : null,
        ),
      },
      { name: "type", label: "Job", cell: jobLink },
      { name: "device", label: "Device", cell: (job) => (job.device ? deviceLink(job.device) : "–") },
      { name: "progress", label: "Progress", cell: jobProgress, grow: true },
      { name: "pace", label: "Rate", cell: jobPace, wide: true },
      {
        name: "created",
        label: "Asked for",
        cell: (job) => h("time", { datetime: job.created_at, title: moment(job.created_at) }, ago(job.created_at)),
        wide: true,
      },
      { name: "actor", label: "By", cell: (job) => h("span", { class: "clip" }, job.actor ?? "–"), wide: true },
      {
        name: "actions",
        label: h("span", { class: "hidden" }, "What can be done"),
        cell: (job) => h("span", { class: "row-actions" }, jobButtons(job)),
        wide: true,
      },
    ],
  });
  return { title: "Jobs", render: () => render(pager, table) };
}

/// Reads the list in parts: what is above the oldest job that was read is known, and kept by events.
class Pager {
  filter = null;
  notBefore = 0;

  constructor(redraw) {
    this.redraw = redraw;
  }

  show(filter) {
    const key = JSON.stringify(filter);
    if (this.key !== key) {
      Object.assign(this, { key, filter, cursor: null, oldest: null, isWhole: false });
      this.more();
    }
    return [...store.jobs.values()]
      .filter((job) => this.fits(job) && (this.isWhole || this.oldest === null || job.id >= this.oldest))
      .sort((one, other) => (one.id < other.id ? 1 : -1));
  }

  fits(job) {
    return (!this.filter.state || job.state === this.filter.state) && (
      !this.filter.device || job.device === this.filter.device
    );
  }

  async more() {
    if (this.isReading || this.isWhole || Date.now() < this.notBefore) return;
    this.isReading = true;
    const { key } = this;
    try {
      const part = await get(withQuery("/v1/jobs", { limit: PART, cursor: this.cursor, ...this.filter }));
      for (const job of part.items) store.put(store.jobs, job.id, job);
      if (this.key === key) {
        this.cursor = part.next;
        this.isWhole = part.next === null;
        this.oldest = part.items.at(-1)?.id ?? this.oldest;
      }
    } catch {
      // It is asked for again while the end of the list is in sight.
      this.notBefore = Date.now() + 3000;
    }
    this.isReading = false;
    if (this.key !== key) this.more();
    this.redraw();
  }
}

function render(pager, table) {
  const { state = "", device = "" } = address().query;
  const jobs = pager.show({ state, device });
  const { queue } = store;
  const states = ["running", "queued", "paused", "failed", "succeeded", "cancelled"];
  const number = { running: queue?.running, queued: queue?.queued, paused: queue?.paused_jobs };
  return h("div", { class: "page" },
    h("div", { class: "page-head" }, h("h1", null, device ? `Jobs of ${device}` : "Jobs"), h("span", { class: "spacer" }),
      queue ? button(queue.paused ? "Let jobs go on" : "Pause all", () => pauseQueue(!queue.paused)) : null,
      queue ? button("Queue …", () => settings(queue), "quiet") : null, curlButton("GET", withQuery("/v1/jobs", { state, device }))),
    queue?.paused ? h("ul", { class: "conditions" }, h("li", null, "All jobs pause: no new step is made.")) : null,
    h("div", { class: "filters" },
      chips("State", "state", [["", "all"], ...states.map((name) => [name, name, number[name]])], state),
    ),
    jobs.length ? table.render(
      jobs,
      pager.isWhole ? `${jobs.length} jobs` : `${jobs.length} jobs so far; older ones come when you scroll`,
    )
      : empty(pager.isReading ? "Reading …" : "There is no such job."));
}

function settings(queue) {
  const number = (text) => (/^\d+$/.test(text) ? Number(text) : null);
  openForm({
    title: "Queue", intro: "What holds for all jobs together.", submit: "Set",
    fields: [
      { name: "total", label: "Jobs at a time", value: String(queue.slots.total), required: true, parse: number },
      {
        name: "per_filesystem",
        label: "On one file system",
        value: String(queue.slots.per_filesystem),
        required: true,
        parse: number,
      },
      {
        name: "bps",
        label: "At most, bytes a second",
        value: queue.limits.bps ? bytes(queue.limits.bps) : "",
        hint: "Of all together; empty for no limit.",
        parse: parseBytes,
      },
    ],
    request: ({ total, per_filesystem: each, bps }) => ({
      method: "PATCH", path: "/v1/queue", body: { slots: { total, per_filesystem: each }, limits: { bps: bps || 0 } } }),
    done: (changed) => {
      store.queue = changed;
      store.tell();
    },
  });
}
