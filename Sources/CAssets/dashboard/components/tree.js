// The snapshots of a disk as the tree that they are, each with what can be done with it.

import { h } from "../core/dom.js";
import { ago, bytes, moment, shortID } from "../core/format.js";
import { badge } from "./parts.js";

export const snapshotName = (snapshot) => snapshot.name || shortID(snapshot.uuid);

/// - actions: the buttons of a snapshot.
export function snapshotTree(snapshots, actions) {
  const known = new Set(snapshots.map((snapshot) => snapshot.uuid));
  const below = (parent) => snapshots.filter(
    (snapshot) => (known.has(snapshot.parent) ? snapshot.parent : null) === parent
  );
  const branch = (parent) => {
    const children = below(parent);
    if (!children.length) return null;
    return h("ul", null, children.map((snapshot) => h("li", { key: snapshot.uuid },
      h("div", { class: `snapshot${snapshot.in_chain ? "" : " aside"}` },
        h("div", { class: "snapshot-words" },
          h("strong", null, snapshotName(snapshot)),
          snapshot.current ? badge("the top builds on it", "good") : null,
          snapshot.protected ? badge("protected", "calm") : null,
          snapshot.temporary ? badge("temporary", "warn") : null,
          h("span", { class: "hint", title: moment(snapshot.created_at) },
            snapshot.created_at ? ago(snapshot.created_at) : "time unknown",
          ),
          h("span", { class: "hint" }, `${bytes(snapshot.exclusive_bytes)} of its own`)),
        h("div", { class: "row-actions" }, actions(snapshot))),
      branch(snapshot.uuid))));
  };
  return h("div", { class: "tree" }, branch(null));
}
