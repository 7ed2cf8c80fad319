// What can be done with a job.

import { act, openForm } from "../components/form.js";
import { iconButton, toast } from "../components/parts.js";
import { isOver, jobName } from "../components/jobrow.js";
import { sentences } from "../components/plan.js";
import { bytes, parseBytes } from "../core/format.js";
import { store } from "../core/store.js";

const path = (job) => `/v1/jobs/${job.id}`;
const words = (job) => `${jobName(job)}${job.device ? ` of ${job.device}` : ""}`;

function taken(job) {
  if (job?.id) store.put(store.jobs, job.id, job);
  store.tell();
}

export async function setPaused(job, paused) {
  taken(await act("PATCH", path(job), { paused }, `${words(job)} ${paused ? "pauses" : "goes on"}.`));
}

export function cancel(job) {
  openForm({
    title: `Cancel ${words(job)}`, danger: true, submit: "Cancel the job",
    plan: () => sentences(
      `The job ends at its next step, ${bytes(job.progress.done_bytes)} of ${bytes(job.progress.total_bytes)} done.`,
      job.type === "merge" || job.type === "delete_snapshot"
        ? "The chain stays valid, and guests go on. What was merged so far is not taken back; a new job goes on there."
        : "What it has begun to make is removed; the disk stays as it is.",
      job.phase === "committing" ? "It is committing: it may finish instead." : null),
    request: () => ({ method: "POST", path: `${path(job)}/cancel` }),
    done: (answer) => {
      taken(answer);
      toast(`${words(job)} is being cancelled.`);
    },
  });
}

export async function retry(job) {
  taken(await act("POST", `${path(job)}/retry`, undefined, `${words(job)} is tried anew.`));
}

export function throttle(job) {
  openForm({
    title: `Speed of ${words(job)}`,
    fields: [
      {
        name: "bps",
        label: "Bytes a second",
        value: job.limits.bps ? bytes(job.limits.bps) : "",
        hint: "As 50 MiB; empty for no limit. It holds at once.",
        parse: parseBytes,
      },
      {
        name: "priority",
        label: "Priority",
        value: String(job.priority),
        hint: "0 to 100; more goes first.",
        parse: parseNumber,
      },
    ],
    submit: "Set", request: ({ bps, priority }) => ({
      method: "PATCH",
      path: path(job),
      body: { limits: { bps: bps || 0 }, priority },
    }),
    done: taken,
  });
}

const parseNumber = (text) => (/^\d+$/.test(text) ? Number(text) : null);

export function forget(job) {
  openForm({
    title: `Forget ${words(job)}`, danger: true, submit: "Forget it",
    plan: () => sentences("The job, its result and its log are removed from the list. What it has done stays."),
    request: () => ({ method: "DELETE", path: path(job) }),
    done: () => {
      store.jobs.delete(job.id);
      store.tell();
      if (location.hash.includes(job.id)) location.hash = "#/jobs";
    },
  });
}

export function jobButtons(job) {
  if (isOver(job)) {
    return [
      job.state === "succeeded" ? null : iconButton("retry", `Try ${words(job)} anew`, () => retry(job)),
    ];
  }
  return [
    job.paused
      ? iconButton("play", `Let ${words(job)} go on`, () => setPaused(job, false))
      : iconButton("pause", `Pause ${words(job)}`, () => setPaused(job, true)),
    iconButton("speed", `Speed of ${words(job)}`, () => throttle(job)),
    iconButton("cross", `Cancel ${words(job)}`, () => cancel(job), "", { disabled: !job.cancellable }),
  ];
}

export async function pauseQueue(paused) {
  const queue = await act("PATCH", "/v1/queue", { paused }, paused ? "All jobs pause." : "Jobs go on.");
  if (queue) store.queue = queue;
  store.tell();
}
