// What a job does, how far it is, and what can be done about it.

import { h } from "../core/dom.js";
import { bytes, duration, percent, rate } from "../core/format.js";
import { link } from "../core/router.js";
import { meter } from "./parts.js";

const NAMES = { delete_snapshot: "delete snapshot" };

export const jobName = (job) => NAMES[job.type] ?? job.type;
export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);

export const jobLink = (job) => h("a", { href: link(["jobs", job.id]) }, jobName(job));

/// Of those that run, how far they are; of others in words why they do not, or what came of them.
export function jobProgress(job) {
  const { progress } = job;
  if (job.state === "failed") return h("span", { class: "bad-text clip", title: job.error?.detail },
    job.error?.detail ?? "failed",
  );
  if (isOver(job)) return h("span", { class: "clip" },
    job.state === "succeeded" && progress.total_bytes ? bytes(progress.done_bytes) : "–",
  );
  const blocker = job.waiting_for[0];
  if (blocker && !progress.done_bytes) return h("span", { class: "clip", title: blocker.detail },
    "waits: ",
    blocker.detail,
  );
  const share = progress.total_bytes ? progress.done_bytes / progress.total_bytes : 0;
  return h("div", { class: "job-progress" },
    meter(share, `${jobName(job)} ${job.device ?? ""}`, job.stalled ? "warn" : job.state === "paused" ? "calm" : ""),
    h("span", { class: "job-figures" }, `${percent(progress.done_bytes, progress.total_bytes)}`,
      h("span", { class: "hint" }, ` ${bytes(progress.done_bytes)} of ${bytes(progress.total_bytes)}`)));
}

export function jobPace(job) {
  if (isOver(job) || job.state !== "running") return "–";
  const { rate_bps: bps, eta_seconds: eta } = job.progress;
  return h("span", { class: "nowrap" },
    rate(bps),
    eta !== null ? h("span", { class: "hint" }, ` ${duration(eta)} left`) : null,
  );
}
