// One job: how far it is, what it waits for, what it has said.

import { h } from "../core/dom.js";
import { call, get } from "../core/api.js";
import { ago, bytes, clock, duration, moment, rate } from "../core/format.js";
import { link } from "../core/router.js";
import { store } from "../core/store.js";
import { panel } from "../components/panel.js";
import { badge, button, deviceLink, empty, facts, meter, problemBox } from "../components/parts.js";
import { isOver, jobName, jobPace } from "../components/jobrow.js";
import { forget, jobButtons } from "../actions/jobs.js";

export function jobPage(id, redraw) {
  const log = new Log(id, redraw);
  read(id, redraw);
  return {
    title: "Job",
    event: (event) => event.subject === id && log.read(),
    stop: () => log.stop(),
    render: () => {
      const job = store.jobs.get(id);
      if (!job) return h("div", { class: "page" }, h("div", { class: "page-head" }, h("h1", null, "Job")),
        empty("There is no such job, or it was forgotten.", h("a", { href: link(["jobs"]) }, "All jobs")));
      return page(job, log);
    },
  };
}

async function read(id, redraw) {
  try {
    store.put(store.jobs, id, await get(`/v1/jobs/${id}`));
  } catch {
    // The page says so.
  }
  redraw();
}

/// The lines of a job's log, the last thousand of them.
class Log {
  lines = [];

  constructor(id, redraw) {
    this.path = `/v1/jobs/${id}/log`;
    this.redraw = redraw;
    this.read();
  }

  stop() {
    this.isStopped = true;
  }

  async read() {
    if (this.isReading || this.isStopped) {
      this.isBehind = true;
      return;
    }
    this.isReading = true;
    try {
      const after = this.lines.length ? `?after=${this.lines.at(-1).n}` : "";
      const text = await call("GET", this.path + after);
      this.lines.push(...text.split("\n").filter(Boolean).map((line) => JSON.parse(line)));
      this.lines.splice(0, Math.max(0, this.lines.length - 1000));
    } catch {
      // The next event asks again.
    }
    this.isReading = false;
    if (this.isBehind) {
      this.isBehind = false;
      this.read();
    }
    this.redraw();
  }
}

function page(job, log) {
  return h("div", { class: "page", key: `job-${job.id}` },
    h("div", { class: "page-head" },
      h("h1", null,
        h("a", { class: "up", href: link(["jobs"]) }, "Jobs"),
        " / ",
        jobName(job),
        job.device ? ` of ${job.device}` : "",
      ),
      badge(job.state), job.stalled ? badge("stalled", "bad") : null, h("span", { class: "spacer" }),
      h("div", { class: "buttons" }, jobButtons(job), isOver(job) ? button("Forget …", () => forget(job), "danger-quiet") : null)),
    job.error
      ? problemBox({
        facts: { title: job.state === "failed" ? "The job has failed" : "An attempt has failed", ...job.error }
      })
      : null,
    h("div", { class: "grid pairs" },
      panel("Progress", { source: ["GET", `/v1/jobs/${job.id}`], wide: true }, progress(job)),
      panel("What it is", {}, what(job)),
      panel("Result", {}, job.result ? values(job.result) : h("p", { class: "hint" }, isOver(job) ? "It has none." : "It comes at the end."),
        job.warnings.length ? h("div", null, h("h3", null, "Warnings"), h("ul", { class: "plain" }, job.warnings.map((text) => h("li", { class: "warn-text" }, text)))) : null),
      panel("Log", { source: ["GET", `/v1/jobs/${job.id}/log`], wide: true },
        log.lines.length ? h("ol", { class: "log", tabindex: "0", "aria-label": "Log" }, log.lines.map((line) => h("li", { key: `line-${line.n}`, class: line.level },
          h("time", { datetime: line.at, title: line.at }, clock(line.at)), " ", line.msg))) : h("p", { class: "hint" }, "It has said nothing yet."))));
}

function progress(job) {
  const { done_bytes: done, total_bytes: total, last_progress_at: last } = job.progress;
  const at = job.phases.indexOf(job.phase);
  return [
    h("ol", { class: "phases", "aria-label": "Phases" }, job.phases.map((phase, index) =>
      h("li", { class: index < at || job.state === "succeeded" ? "past" : index === at && !isOver(job) ? "now" : "", "aria-current": index === at && !isOver(job) ? "step" : null }, phase.replaceAll("_", " ")))),
    total ? meter(done / total, "Progress", job.state === "failed" ? "bad" : job.stalled ? "warn" : "") : null,
    h("p", { class: "job-line" },
      total ? `${bytes(done)} of ${bytes(total)}` : "Nothing to copy",
      " · ",
      jobPace(job),
      last ? [" · came further ", ago(last)] : null,
    ),
    job.waiting_for.length
      ? h("ul", { class: "conditions" },
        job.waiting_for.map(
          (blocker) => h("li", null,
            h("strong", null, `Waits for ${blocker.kind.replaceAll("_", " ")}`),
            " ",
            blocker.detail,
          )
        ),
      )
      : null,
  ];
}

function what(job) {
  const end = job.finished_at ? Date.parse(job.finished_at) : Date.now();
  return facts([
    ["Id", h("code", null, job.id)],
    ["Device", job.device ? deviceLink(job.device) : "–"],
    ["By", job.actor ?? "the service"],
    ["Asked for", moment(job.created_at)],
    job.started_at && ["Began", moment(job.started_at)],
    job.started_at && [job.finished_at ? "Took" : "Has run for", duration((end - Date.parse(job.started_at)) / 1000)],
    ["Attempt", `${job.attempt}${job.interruptions ? `, interrupted ${job.interruptions} times` : ""}`],
    ["Speed", job.limits.bps ? `at most ${rate(job.limits.bps)}` : "no limit"],
    ["Priority", String(job.priority)],
    ...Object.entries(job.params).map(
      ([name, value]) => [
        name.replaceAll("_", " "),
        h("code", null, typeof value === "string" ? value : JSON.stringify(value)),
      ]
    ),
  ]);
}

const values = (result) => facts(Object.entries(result).map(([name, value]) => [
  name.replaceAll("_", " "),
  name.includes("bytes") && typeof value === "number" ? bytes(value) : typeof value === "object" && value !== null ? h("code", null, JSON.stringify(value)) : String(value ?? "–")]));
