// Addresses behind the #: `#/devices/vm1?state=failed`.

export function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    parts: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

export function link(parts, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value);
  const text = wanted.length ? "?" + new URLSearchParams(wanted) : "";
  return "#/" + parts.map(encodeURIComponent).join("/") + text;
}

export function go(parts, query) {
  location.hash = link(parts, query);
}

/// The same page with another query, without a step back in the history.
export function refine(query) {
  const { parts, query: old } = address();
  history.replaceState(null, "", link(parts, { ...old, ...query }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
