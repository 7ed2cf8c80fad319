// Everything at a glance: what needs somebody, what runs, how full and how busy it is.

import { h } from "../core/dom.js";
import { ago, bytes, count, duration, latency, perSecond, rate, secondsSince } from "../core/format.js";
import { metrics } from "../core/metrics.js";
import { link } from "../core/router.js";
import { store } from "../core/store.js";
import { panel } from "../components/panel.js";
import { badge, button, deviceLink, empty } from "../components/parts.js";
import { spark, stacked } from "../components/spark.js";
import { icon } from "../components/icons.js";
import { jobLink, jobName, jobPace, jobProgress } from "../components/jobrow.js";
import { troubles } from "../components/troubles.js";
import { jobButtons } from "../actions/jobs.js";
import { attachDisk, createDisk } from "../actions/devices.js";

const DAY = 86400;
const LOW_BYTES = 5 * 2 ** 30;

export function overview() {
  return { title: "Overview", render };
}

function render() {
  return h("div", { class: "page" },
    h("div", { class: "page-head" }, h("h1", null, "Overview"), h("span", { class: "spacer" }),
      button([icon("plus"), "New disk"], createDisk, "primary"), button("Attach a disk", attachDisk)),
    h("div", { class: "grid" }, attention(), running(), space(), conditions(), freshness(), throughput()));
}

function attention() {
  const found = findings();
  return panel("Needs attention", { key: "attention", wide: true },
    found.length
      ? h("ul", { class: "findings" }, found.slice(0, 12).map(({ tone, what, text, remedy, href }) =>
        h("li", { class: tone, key: text }, icon("warn"), h("div", null, h("p", null, badge(what, tone), " ", href ? h("a", { href }, text) : text),
          remedy ? h("p", { class: "hint" }, remedy) : null))))
      : h("p", { class: "all-well" }, icon("ok"), "Nothing. All is well."),
    found.length > 12 ? h("p", { class: "hint" }, `and ${found.length - 12} more`) : null);
}

function findings() {
  const found = [];
  for (const job of store.jobs.values()) {
    const href = link(["jobs", job.id]);
    const name = `${jobName(job)}${job.device ? ` of ${job.device}` : ""}`;
    if (job.stalled) found.push({ tone: "bad", what: "stalled", text: `${name} has not moved for two minutes`, href });
    if (job.state === "failed" && secondsSince(job.finished_at) < DAY) {
      found.push({
        tone: "bad",
        what: "failed",
        text: `${name}: ${job.error?.detail ?? ""} (${ago(job.finished_at)})`,
        remedy: job.error?.remedy,
        href,
      });
    }
  }
  for (const device of store.devices.values()) {
    const href = link(["devices", device.id]);
    if (device.state === "failed") found.push({
      tone: "bad",
      what: "failed",
      text: `${device.id} cannot be used`,
      remedy: told(device),
      href,
    });
    else if (device.state === "degraded") found.push({
      tone: "warn",
      what: "degraded",
      text: `${device.id} is degraded`,
      remedy: told(device),
      href,
    });
    if (device.suspension && secondsSince(device.suspension.since) > 30) {
      found.push({
        tone: "warn",
        what: "suspended",
        text: `${device.id} is suspended by ${device.suspension.holder} for ${duration(secondsSince(device.suspension.since))}`,
        href,
      });
    }
    if (device.repairs.length) found.push({
      tone: "warn",
      what: "mended",
      text: `${device.id} was not closed and has been mended`,
      remedy: device.repairs.join("; "),
      href,
    });
  }
  for (const root of store.service.roots) {
    if (root.free_bytes !== null && root.free_bytes < LOW_BYTES) found.push({
      tone: "warn",
      what: "space",
      text: `${root.name} has ${bytes(root.free_bytes)} free`,
    });
  }
  for (const target of store.targets.values()) {
    const [reach] = troubles(target);
    if (reach) found.push({
      tone: "warn",
      what: "target",
      text: `${target.name} cannot be reached: ${reach.message}`,
      href: link(["backups"]),
    });
  }
  return found.sort((one, other) => (one.tone === other.tone ? 0 : one.tone === "bad" ? -1 : 1));
}

const told = (device) => troubles(device).map((condition) => condition.message).join("; ");

function running() {
  const active = [...store.jobs.values()].filter((job) => ["running", "paused", "cancelling"].includes(job.state));
  const waiting = [...store.jobs.values()].filter((job) => job.state === "queued");
  return panel("Running now", { key: "running", wide: true, source: ["GET", "/v1/jobs?state=running"] },
    active.length ? h("ul", { class: "running" }, active.slice(0, 10).map((job) => h("li", { key: job.id },
      h("span", { class: "running-name" }, jobLink(job), job.device ? [" ", deviceLink(job.device)] : null),
      h("span", { class: "hint" }, job.state === "running" ? (job.phase ?? "").replaceAll("_", " ") : job.state),
      jobProgress(job), jobPace(job), h("span", { class: "row-actions" }, jobButtons(job))))) : h("p", { class: "hint" }, "No job runs."),
    active.length > 10
      ? h("p", null, h("a", { href: link(["jobs"], { state: "running" }) }, `all ${active.length}`))
      : null,
    waiting.length ? h("p", { class: "waiting" }, "Waiting: ", waiting.slice(0, 3).map((job, index) =>
      [index ? ", " : "", h("a", { href: link(["jobs", job.id]) }, `${jobName(job)} ${job.device ?? ""}`), job.waiting_for[0] ? ` (${job.waiting_for[0].detail})` : ""]),
    waiting.length > 3 ? ` and ${waiting.length - 3} more` : "") : null);
}

function space() {
  const usage = (name) => metrics.sum("ploopd_images_disk_bytes", { usage: name });
  const free = store.service.roots.reduce((sum, root) => sum + (root.free_bytes ?? 0), 0);
  const parts = [
    ["device", "tops", "level-0"],
    ["snapshot", "snapshots", "level-1"],
    ["backup", "backups", "level-2"],
    ["orphan", "orphans", "level-5"],
    ["unknown", "unknown", "level-4"],
  ];
  return panel("Space", { source: ["GET", "/v1/images?limit=1"] },
    stacked("Space that is taken", parts.map(([name, label, tone]) => ({
      label, tone, value: usage(name), text: bytes(usage(name)), href: name === "orphan" ? link(["images"], { state: "orphaned" }) : null }))),
    h("ul", { class: "plain" },
      store.service.roots.map(
        (root) => h("li", null, h("code", null, root.name), ` has `, h("strong", null, bytes(root.free_bytes)), " free")
      ),
    ),
    free ? null : h("p", { class: "hint" }, "How much is free is not known."));
}

function conditions() {
  const devices = [...store.devices.values()];
  const number = (state) => devices.filter((device) => device.state === state).length;
  const states = [
    ["online", "good"],
    ["suspended", "warn"],
    ["degraded", "warn"],
    ["failed", "bad"],
    ["attaching", "busy"],
  ];
  return panel("Devices", { source: ["GET", "/v1/devices"] },
    devices.length ? stacked("Devices by state", states.filter(([state]) => state === "online" || number(state)).map(([state, tone]) => ({
      label: state, tone, value: number(state), text: count(number(state)), href: link(["devices"], { state }) })))
      : empty("There is no disk yet.", button("Make the first one", createDisk, "primary")));
}

function freshness() {
  const newest = new Map();
  for (const { labels, value } of metrics.find("ploopd_device_last_backup_timestamp_seconds")) {
    newest.set(labels.device, Math.max(newest.get(labels.device) ?? 0, value));
  }
  const ages = { day: 0, week: 0, older: 0, never: 0 };
  for (const device of store.devices.values()) {
    if (device.readonly) continue;
    const age = Date.now() / 1000 - (newest.get(device.id) ?? 0);
    ages[!newest.has(device.id) ? "never" : age < DAY ? "day" : age < 7 * DAY ? "week" : "older"] += 1;
  }
  const parts = [
    ["day", "a day", "good"],
    ["week", "a week", "busy"],
    ["older", "older", "warn"],
    ["never", "none", "bad"],
  ];
  return panel("Last backup", { source: ["GET", "/metrics"] },
    metrics.samples === false ? h("p", { class: "hint" },
      "This token is for some devices only and does not see metrics.",
    )
      : stacked("Devices by the age of their last backup", parts.map(([name, label, tone]) => ({
        label, tone, value: ages[name], text: count(ages[name]) }))));
}

function throughput() {
  const { read, write, ops, p99 } = metrics.series;
  return panel("Throughput", { source: ["GET", "/metrics"], wide: true },
    metrics.samples === false ? h("p", { class: "hint" },
      "This token is for some devices only and does not see metrics.",
    )
      : h("div", { class: "sparks" },
        spark(
          "Bytes",
          [{ label: "read", values: read, tone: "level-0" }, { label: "write", values: write, tone: "level-1" }],
          rate,
        ),
        spark("Requests", [{ label: "all", values: ops, tone: "level-2" }], perSecond),
        spark("Latency", [{ label: "p99", values: p99, tone: "level-3" }], latency, "as 99 of 100 requests take at most")),
    h("p", { class: "hint" }, `Of all disks, the last five minutes. The service has run for ${duration(secondsSince(store.service.started_at))}.`));
}
