// Figures over time, sampled from /metrics: rates are differences of counters.

import { get } from "./api.js";

const PERIOD_MS = 5000;
const KEPT = 60;

export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const open = line.indexOf("{");
    const close = line.lastIndexOf("}");
    const labels = {};
    if (open > 0) {
      for (
        const [, name, value] of line.slice(open, close).matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)
      ) labels[name] = value;
    }
    const name = open > 0 ? line.slice(0, open) : line.slice(0, line.indexOf(" "));
    samples.push({ name, labels, value: Number(line.slice(line.lastIndexOf(" ") + 1)) });
  }
  return samples;
}

class Metrics {
  /// Null before the first answer, false where the caller may not see them.
  samples = null;
  series = { read: [], write: [], ops: [], p99: [] };
  /// By device: bytes in a second.
  rates = new Map();

  start(changed) {
    this.changed = changed;
    this.isStopped = false;
    this.next();
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
  }

  async next() {
    if (this.isStopped) return;
    let took = 0;
    if (!document.hidden) {
      const began = performance.now();
      try {
        this.take(parseMetrics(await get("/metrics")), began / 1000);
      } catch (problem) {
        if (problem.status === 403) this.samples = false;
      }
      took = performance.now() - began;
      this.changed();
    }
    // Many devices make a long answer: neither side is to be kept busy by it.
    if (this.samples !== false && !this.isStopped) {
      this.timer = setTimeout(() => this.next(), Math.max(PERIOD_MS, took * 20));
    }
  }

  take(samples, at) {
    const now = { at, devices: new Map(), buckets: new Map(), read: 0, write: 0, ops: 0 };
    for (const { name, labels, value } of samples) {
      if (name === "ploopd_device_bytes_total" && (labels.op === "read" || labels.op === "write")) {
        now[labels.op] += value;
        now.devices.set(labels.device, (now.devices.get(labels.device) ?? 0) + value);
      } else if (name === "ploopd_device_ops_total") now.ops += value;
      else if (name === "ploopd_device_io_seconds_bucket") {
        const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
        now.buckets.set(bound, (now.buckets.get(bound) ?? 0) + value);
      }
    }
    // A histogram of each device and request takes most of the text, and is summed up above.
    this.samples = samples.filter((sample) => !sample.name.startsWith("ploopd_device_io_seconds"));
    if (this.last) this.compare(this.last, now);
    this.last = now;
  }

  compare(before, now) {
    const seconds = now.at - before.at;
    const rise = (one, other) => Math.max(0, (one - other) / seconds);
    push(this.series.read, rise(now.read, before.read));
    push(this.series.write, rise(now.write, before.write));
    push(this.series.ops, rise(now.ops, before.ops));
    push(this.series.p99, quantile(now.buckets, before.buckets, 0.99));
    this.rates = new Map(
      [...now.devices].map(([id, value]) => [id, rise(value, before.devices.get(id) ?? value)]));
  }

  find(name, labels = {}) {
    return (this.samples || []).filter(
      (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value));
  }

  sum(name, labels) {
    return this.find(name, labels).reduce((sum, sample) => sum + sample.value, 0);
  }
}

export function push(series, value) {
  series.push(value);
  if (series.length > KEPT) series.shift();
}

/// Of what came between two looks at cumulative buckets, by their upper bounds; null for nothing.
export function quantile(now, before, share) {
  const bounds = [...now.keys()].sort((one, other) => one - other);
  const risen = bounds.map((bound) => now.get(bound) - (before.get(bound) ?? 0));
  const total = risen.at(-1) ?? 0;
  if (total <= 0) return null;
  const at = risen.findIndex((value) => value >= total * share);
  return Number.isFinite(bounds[at]) ? bounds[at] : bounds.at(-2) ?? null;
}

export const metrics = new Metrics();
