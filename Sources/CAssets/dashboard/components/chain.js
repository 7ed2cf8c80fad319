// The chain of a disk: each delta a box as wide as it holds clusters, the oldest on the left, guests write the right one.

import { h } from "../core/dom.js";
import { bytes, count, shortID } from "../core/format.js";
import { badge } from "./parts.js";

export const levelTone = (level) => `level-${level % 8}`;

export function chainDiagram(device, names) {
  const most = Math.max(1, ...device.deltas.map((delta) => delta.clusters));
  return h("ol", { class: "chain", tabindex: "0", "aria-label": "The chain, oldest delta first" }, device.deltas.map((delta) =>
    h("li", {
      class: `chain-delta ${levelTone(delta.level)}${delta.top ? " top" : ""}`, key: `delta-${delta.level}`,
      style: { "flex-grow": String(0.25 + delta.clusters / most) },
      title: `${delta.path}\n${count(delta.clusters)} clusters, ${bytes(delta.disk_bytes)} on disk`,
    },
    h("span", { class: "chain-name" },
      names.get(delta.uuid) ?? (delta.top ? "top" : delta.uuid ? shortID(delta.uuid) : `level ${delta.level}`),
    ),
    h("span", { class: "chain-size" }, bytes(delta.disk_bytes)),
    h("span", { class: "chain-marks" },
      delta.top ? badge("written", "good") : null,
      delta.format === "raw" ? badge("raw") : null,
    ),
    h("code", { class: "chain-path" }, delta.path.split("/").at(-1)))));
}
