// What stands around every view: where one is, how the service is, and whether what is shown is live.

import { h } from "../core/dom.js";
import { bytes } from "../core/format.js";
import { address, link } from "../core/router.js";
import { metrics } from "../core/metrics.js";
import { setTheme, setToken, theme, token } from "../core/session.js";
import { store } from "../core/store.js";
import { iconButton } from "../components/parts.js";
import { icon } from "../components/icons.js";
import { pauseQueue } from "../actions/jobs.js";

const PAGES = [
  ["overview", "Overview"],
  ["devices", "Devices"],
  ["jobs", "Jobs"],
  ["backups", "Backups"],
  ["images", "Images"],
  ["events", "Events"],
];
const THEMES = {
  auto: ["light", "auto", "Colours: as the system has them"],
  light: ["dark", "light", "Colours: light"],
  dark: ["auto", "dark", "Colours: dark"],
};

export function frame(content, redraw) {
  const here = address().parts[0] ?? "overview";
  return [
    h("header", { class: "top", key: "top" },
      h("div", { class: "top-line" },
        h("a", { class: "brand", href: link(["overview"]) }, h("img", { src: "/dashboard/style/icon.svg", alt: "", width: "22", height: "22" }), "ploopd",
          store.service ? h("span", { class: "node" }, store.service.node) : null),
        summary(), h("span", { class: "spacer" }), connection(), tools(redraw)),
      h("nav", { class: "tabs", "aria-label": "Pages" }, PAGES.map(([name, text]) =>
        h("a", { href: link([name]), key: name, "aria-current": here === name ? "page" : null }, text, mark(name))))),
    store.connection === "lost" && store.isLoaded ? h("div", { class: "banner", key: "banner" }, icon("warn"),
      h("p", null, h("strong", null, "The connection is lost."), " What is shown may be old; the page comes back by itself.")) : null,
    h("main", { id: "main", tabindex: "-1", key: "main" }, content),
    footer(),
  ];
}

function summary() {
  if (!store.isLoaded) return null;
  const devices = [...store.devices.values()];
  const bad = devices.filter((device) => device.state === "failed" || device.state === "degraded").length;
  const queue = store.queue;
  const free = store.service.roots.reduce((least, root) => Math.min(least, root.free_bytes ?? Infinity), Infinity);
  return h("ul", { class: "summary", "aria-label": "In short" },
    h("li", null, h("a", { href: link(["devices"]) }, h("strong", null, String(devices.length)), " devices"),
      bad ? h("a", { class: "bad-text", href: link(["devices"], { state: "bad" }) }, `, ${bad} not well`) : null),
    queue ? h("li", null, h("a", { href: link(["jobs"]) }, h("strong", null, String(queue.running)), ` running, ${queue.queued} queued`),
      queue.paused ? h("span", { class: "warn-text" }, " paused ") : null,
      iconButton(queue.paused ? "play" : "pause", queue.paused ? "Let jobs go on" : "Pause all jobs", () => pauseQueue(!queue.paused), "quiet small")) : null,
    Number.isFinite(free) ? h("li", null, h("strong", null, bytes(free)), " free") : null);
}

function connection() {
  const words = { live: "live", connecting: "connecting …", lost: "connection lost" };
  return h("p", { class: `connection ${store.connection}`, role: "status" },
    h("span", { class: "dot", "aria-hidden": "true" }),
    words[store.connection],
  );
}

function tools(redraw) {
  const [next, sign, words] = THEMES[theme()];
  return h("div", { class: "tools" },
    iconButton(sign, words, () => {
      setTheme(next);
      redraw();
    }, "quiet"),
    token() ? iconButton("lock", "Forget the token", () => {
      setToken("");
      location.reload();
    }, "quiet") : null);
}

/// How much there is behind a page that wants to be looked at.
function mark(name) {
  if (!store.isLoaded) return null;
  if (name === "jobs" && store.queue?.running) return h("span",
    { class: "tab-mark", "aria-label": `${store.queue.running} running` },
    String(store.queue.running),
  );
  if (
    name === "images" && metrics.sum("ploopd_images_disk_bytes", { usage: "orphan" }) > 0
  ) return h("span", { class: "tab-mark warn" }, "orphans");
  return null;
}

function footer() {
  return h("footer", { class: "bottom", key: "footer" },
    h("span", null, store.service ? `ploopd ${store.service.version}` : "ploopd"), h("span", null, "API v1"),
    h("a", { href: "/docs" }, "documentation"), h("a", { href: "/openapi.json" }, "openapi.json"),
    h("span", null, "times are UTC unless they say “ago”"));
}
