// What the page of a disk shows beside the disk itself, read when it may have changed.

import { get, list } from "../core/api.js";
import { push } from "../core/metrics.js";
import { optional, store } from "../core/store.js";

const SAMPLE_MS = 2000;
/// Writes make no event, and move clusters all the same.
const SAMPLES_FOR_A_MAP = 5;
const MOST_RUNS = 40_000;

export class DeviceParts {
  /// Null before the first answer.
  snapshots = null;
  checkpoints = [];
  runs = null;
  isCut = false;
  dirty = null;
  since = null;
  stats = null;
  problem = null;
  series = { read: [], write: [], ops: [], latency: [] };

  constructor(id, redraw) {
    this.id = id;
    this.path = `/v1/devices/${id}`;
    this.redraw = redraw;
    this.readAll();
    this.sample();
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.sampler);
    clearTimeout(this.reader);
  }

  event(event) {
    if (event.device !== this.id && event.subject !== this.id) return;
    if (event.type === "job.progress" || event.type.startsWith("client.")) return;
    clearTimeout(this.reader);
    this.reader = setTimeout(() => this.readAll(), 300);
  }

  async readAll() {
    try {
      const [snapshots, checkpoints] = await Promise.all([
        optional(get(`${this.path}/snapshots`)), optional(
          get(`${this.path}/checkpoints`)
        ), this.readMap(), this.readDevice(), this.readJobs(),
      ]);
      this.snapshots = snapshots?.items ?? [];
      this.checkpoints = checkpoints?.items ?? [];
      this.problem = null;
      await this.readDirty();
    } catch (problem) {
      // A disk that could not be brought back has no parts; the connection has words of its own.
      if (problem.status && problem.code !== "device-failed") this.problem = problem;
    }
    this.redraw();
  }

  /// Figures of files move without an event.
  async readDevice() {
    const device = await optional(get(this.path));
    if (device) store.put(store.devices, this.id, device);
  }

  async readJobs() {
    const jobs = await optional(get(`/v1/jobs?device=${this.id}&limit=20`));
    for (const job of jobs?.items ?? []) store.put(store.jobs, job.id, job);
  }

  async readMap() {
    const runs = [];
    let offset = 0;
    while (offset !== null && runs.length < MOST_RUNS) {
      const part = await optional(get(`${this.path}/map?offset=${offset}&limit=10000`));
      if (!part) return;
      runs.push(...part.runs);
      offset = part.next_offset;
    }
    this.runs = runs;
    this.isCut = offset !== null;
  }

  async mark(name) {
    this.since = name;
    await this.readDirty();
    this.redraw();
  }

  async readDirty() {
    const known = this.checkpoints.some((checkpoint) => checkpoint.name === this.since);
    const bitmap = known
      ? await optional(get(`${this.path}/checkpoints/${encodeURIComponent(this.since)}/bitmap`))
      : null;
    this.dirty = bitmap?.extents ?? null;
  }

  async sample() {
    if (this.isStopped) return;
    if (!document.hidden) {
      try {
        this.take(await get(`${this.path}/stats`), performance.now() / 1000);
        await this.followWrites();
      } catch {
        // The next one may be answered.
      }
      this.redraw();
    }
    this.sampler = setTimeout(() => this.sample(), SAMPLE_MS);
  }

  async followWrites() {
    const changes = this.stats.write.ops + this.stats.trim.ops + this.stats.zero.ops;
    this.mapped ??= changes;
    this.samples = (this.samples ?? 0) + 1;
    if (this.samples % SAMPLES_FOR_A_MAP || this.mapped === changes) return;
    this.mapped = changes;
    await this.readAll();
  }

  take(stats, at) {
    const before = this.stats;
    if (before && before.since === stats.since) {
      const seconds = at - this.at;
      const rise = (pick) => Math.max(0, pick(stats) - pick(before));
      const all = (pick) => (one) => [
        "read",
        "write",
        "flush",
        "trim",
        "zero",
      ].reduce((sum, op) => sum + pick(one[op]), 0);
      const ops = rise(all((op) => op.ops));
      push(this.series.read, rise((one) => one.read.bytes) / seconds);
      push(this.series.write, rise((one) => one.write.bytes) / seconds);
      push(this.series.ops, ops / seconds);
      push(this.series.latency, ops ? rise(all((op) => op.latency_ns_sum)) / ops / 1e9 : null);
    }
    this.stats = stats;
    this.at = at;
  }
}
