// How busy a disk is, and how long its requests take.

import { h } from "../core/dom.js";
import { bytes, count, latency, perSecond, rate } from "../core/format.js";
import { facts } from "../components/parts.js";
import { spark } from "../components/spark.js";

const OPERATIONS = ["read", "write", "flush", "trim", "zero"];

export function deviceFigures({ throttle }, { stats, series }) {
  if (!stats) return h("p", { class: "hint" }, "Reading …");
  return [
    h("div", { class: "sparks" },
      spark(
        "Bytes",
        [
          { label: "read", values: series.read, tone: "level-0" },
          { label: "write", values: series.write, tone: "level-1" },
        ],
        rate,
      ),
      spark("Requests", [{ label: "all", values: series.ops, tone: "level-2" }], perSecond),
      spark("Latency", [{ label: "mean", values: series.latency, tone: "level-3" }], latency)),
    h("div", { class: "two" }, operations(stats), h("div", null, histogram(stats),
      facts([
        ["In flight", count(stats.in_flight)], ["Copied on write", `${count(stats.cow_clusters)} clusters`],
        ["Pauses", `${count(stats.pauses)}, the longest ${latency(stats.pause_ns_max / 1e9)}`],
        throttle && ["Limits of reads", limits(throttle.read_bps, throttle.read_iops)],
        throttle && ["Limits of writes", limits(throttle.write_bps, throttle.write_iops)],
        ...["read", "write"].map((name) => waits(name, stats)),
      ]))),
  ];
}

/// Of all NBD clients together.
const limits = (bps, iops) => [bps && rate(bps), iops && perSecond(iops)].filter(Boolean).join(", ") || "none";

/// Requests that those limits have kept waiting; nothing where there were none.
function waits(name, stats) {
  const number = stats[`throttle_${name}_waits`];
  return number
    ? [`Throttled ${name}s`, `${count(number)}, each for ${latency(stats[`throttle_${name}_wait_ns_sum`] / number / 1e9)}`]
    : null;
}

function operations(stats) {
  return h("table", { class: "small" },
    h("thead", null,
      h("tr", null,
        ["Request", "Number", "Bytes", "Mean", "Errors"].map(
          (text, index) => h("th", { scope: "col", class: index ? "right" : "" }, text)
        ),
      ),
    ),
    h("tbody", null, OPERATIONS.map((name) => [name, stats[name]]).map(([name, op]) => h("tr", { key: name },
      h("th", { scope: "row" }, name), h("td", { class: "right" }, count(op.ops)), h("td", { class: "right" },
        bytes(op.bytes),
      ),
      h("td", { class: "right" }, op.ops ? latency(op.latency_ns_sum / op.ops / 1e9) : "–"),
      h("td", { class: `right${op.errors ? " bad-text" : ""}` }, count(op.errors))))));
}

/// Of reads and writes together: how many took about so long.
function histogram(stats) {
  const counts = stats.boundaries_us.map(
    (_, index) => stats.read.latency_histogram[index] + stats.write.latency_histogram[index]
  );
  counts.push((stats.read.latency_histogram.at(-1) ?? 0) + (stats.write.latency_histogram.at(-1) ?? 0));
  const most = Math.max(1, ...counts);
  const bound = (index) => (
    index < stats.boundaries_us.length ? `up to ${latency(stats.boundaries_us[index] / 1e6)}` : "longer"
  );
  const words = counts.map(
    (value, index) => (value ? `${bound(index)}: ${count(value)}` : "")
  ).filter(Boolean).join(", ");
  return h("figure", { class: "histogram" },
    h("figcaption", null, "Latency of reads and writes"),
    h("div", { class: "histogram-bars", role: "img", "aria-label": words || "no request yet" }, counts.map((value, index) =>
      h("span", { title: `${bound(index)}: ${count(value)}`, style: { height: `${value ? 4 + (96 * value) / most : 1}%` } }))),
    h("div", { class: "histogram-scale", "aria-hidden": "true" }, h("span", null, latency(stats.boundaries_us[0] / 1e6)), h("span", null, latency(stats.boundaries_us.at(-1) / 1e6))));
}
