// Where a disk's bytes lie: cells from the beginning of the disk to its end, coloured by the delta that has most of
// them; what was written since a checkpoint is marked.

import { h } from "../core/dom.js";
import { bytes, percent } from "../core/format.js";
import { levelTone } from "./chain.js";

const CELL = 9;
const GAP = 1;
const ROWS = 16;

/// - runs: of the map. - dirty: extents since a checkpoint, or null.
export function blockMap(device, runs, dirty, isCut) {
  const held = new Map();
  for (const run of runs) if (run.level !== null && run.state === "data") held.set(
    run.level,
    (held.get(run.level) ?? 0) + run.length,
  );
  const dirtyBytes = (dirty ?? []).reduce((sum, extent) => sum + extent.length, 0);
  const levels = [...held].sort(([one], [other]) => one - other);
  const words = levels.map(([level, size]) => `level ${level} has ${bytes(size)}, ${percent(size, device.size)}`);
  const canvas = h("canvas",
    {
      class: "map",
      role: "img",
      keep: `map-${device.id}`,
      "aria-label": `Map of ${bytes(device.size)}: ${words.join("; ") || "nothing is written"}`,
    },
  );
  return {
    node: h("div", { class: "blockmap" }, canvas,
      h("ul", { class: "legend" },
        levels.map(
          ([level, size]) => h("li", null,
            h("span", { class: `dot ${levelTone(level)}`, "aria-hidden": "true" }),
            `level ${level} `,
            h("strong", null, bytes(size)),
          )
        ),
        h("li", null, h("span", { class: "dot hole", "aria-hidden": "true" }), "nothing "),
        dirty
          ? h("li", null,
            h("span", { class: "dot dirty", "aria-hidden": "true" }),
            "written since the checkpoint ",
            h("strong", null, bytes(dirtyBytes)),
          )
          : null,
        isCut ? h("li", { class: "hint" }, "only the first part is shown") : null)),
    draw: (shown) => draw(shown, device.size, runs, dirty),
  };
}

function draw(canvas, size, runs, dirty) {
  const width = canvas.clientWidth;
  if (!width || !size) return;
  const columns = Math.max(8, Math.floor(width / (CELL + GAP)));
  const cells = columns * ROWS;
  const perCell = size / cells;
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = ROWS * (CELL + GAP) * ratio;
  canvas.style.height = `${ROWS * (CELL + GAP)}px`;
  const colours = [0, 1, 2, 3, 4, 5, 6, 7].map((level) => colour(canvas, `--level-${level}`));
  const hole = colour(canvas, "--hole");
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const cell = (index, inset = 0) => [
    (index % columns) * (CELL + GAP) + inset, Math.floor(index / columns) * (CELL + GAP) + inset, CELL - 2 * inset, CELL - 2 * inset];
  const [owners, shares] = owned(runs, cells, perCell);
  for (let index = 0; index < cells; index += 1) {
    context.globalAlpha = 1;
    context.fillStyle = hole;
    context.fillRect(...cell(index));
    if (owners[index] < 0) continue;
    context.globalAlpha = 0.35 + 0.65 * Math.min(1, shares[index]);
    context.fillStyle = colours[owners[index] % 8];
    context.fillRect(...cell(index));
  }
  context.globalAlpha = 1;
  context.fillStyle = colour(canvas, "--dirty");
  for (const { start, length } of dirty ?? []) {
    for (let index = Math.floor(start / perCell); index * perCell < start + length && index < cells; index += 1) {
      context.fillRect(...cell(index, 2.5));
    }
  }
}

/// One of the page's colours as a canvas takes it: by light or by dark.
function colour(canvas, name) {
  canvas.style.color = `var(${name})`;
  return getComputedStyle(canvas).color;
}

/// Of each cell the level that has most of it, or -1, and how much of it is held at all.
function owned(runs, cells, perCell) {
  const best = new Float64Array(cells);
  const owners = new Int16Array(cells).fill(-1);
  const shares = new Float64Array(cells);
  for (const { start, length, level, state } of runs) {
    if (level === null || state !== "data") continue;
    for (let index = Math.floor(start / perCell); index * perCell < start + length && index < cells; index += 1) {
      const part = Math.min(start + length, (index + 1) * perCell) - Math.max(start, index * perCell);
      shares[index] += part / perCell;
      if (part <= best[index]) continue;
      best[index] = part;
      owners[index] = level;
    }
  }
  return [owners, shares];
}
