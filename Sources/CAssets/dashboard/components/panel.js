import { h } from "../core/dom.js";
import { curlButton } from "./curl.js";

/// A part of a page with a heading, what can be done with it, and the call that its figures come from.
export function panel(title, { actions = [], source, key, wide } = {}, ...content) {
  const id = `panel-${(key ?? title).toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return h("section", { class: `panel${wide ? " wide" : ""}`, key: key ?? title, "aria-labelledby": id },
    h("header", { class: "panel-head" },
      h("h2", { id }, title),
      h("div", { class: "panel-actions" }, actions, source && curlButton(...source))),
    h("div", { class: "panel-body" }, content));
}
