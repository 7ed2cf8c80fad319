// Figures over time as a line without axes: the newest value stands beside it.

import { h, s } from "../core/dom.js";

const WIDTH = 160;
const HEIGHT = 36;

/// - series: `{label, values, tone}`, drawn to one scale.
export function spark(title, series, format, hint) {
  const highest = Math.max(...series.flatMap(({ values }) => values.filter((value) => value !== null)), 1e-12);
  const said = series.map(
    ({ label, values }) => `${label} ${format(values.at(-1) ?? null)}, at most ${format(most(values))}`
  ).join("; ");
  return h("figure", { class: "spark", key: title },
    h("figcaption", null, title, hint ? h("span", { class: "hint" }, `, ${hint}`) : null),
    s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${said}` },
      series.map(({ values, tone }) => line(values, highest, tone))),
    h("ul", { class: "spark-values" }, series.map(({ label, values, tone }) =>
      h("li", null, h("span", { class: `dot ${tone}`, "aria-hidden": "true" }), `${label} `, h("strong", null, format(values.at(-1) ?? null))))));
}

const most = (values) => values.reduce((high, value) => (value !== null && value > (high ?? -1) ? value : high), null);

function line(values, highest, tone) {
  if (values.length < 2) return null;
  const step = WIDTH / 59;
  const start = WIDTH - (values.length - 1) * step;
  const points = values.map((value, index) =>
    [start + index * step, HEIGHT - 2 - ((value ?? 0) / highest) * (HEIGHT - 5)].map((number) => number.toFixed(1)));
  const path = "M" + points.map((point) => point.join(" ")).join("L");
  return s("g", { class: tone },
    s("path", { class: "spark-area", d: `${path}L${WIDTH} ${HEIGHT}L${points[0][0]} ${HEIGHT}Z` }),
    s("path", { class: "spark-line", d: path, "vector-effect": "non-scaling-stroke" }));
}

/// A bar of parts, each with its share and its words.
export function stacked(label, parts) {
  const whole = parts.reduce((sum, part) => sum + part.value, 0);
  const shown = parts.filter((part) => part.value > 0);
  return h("div", { class: "stacked" },
    h("div", { class: "stacked-bar", role: "img", "aria-label": `${label}: ${shown.map((part) => `${part.label} ${part.text}`).join(", ") || "nothing"}` },
      shown.map((part) => h("span", { class: part.tone, style: { "flex-grow": String(whole ? part.value / whole : 0) } }))),
    h("ul", { class: "legend" }, parts.map((part) => {
      const words = [
        h("span", { class: `dot ${part.tone}`, "aria-hidden": "true" }),
        `${part.label} `,
        h("strong", null, part.text),
      ];
      return h("li", null, part.href ? h("a", { href: part.href }, words) : words);
    })));
}
