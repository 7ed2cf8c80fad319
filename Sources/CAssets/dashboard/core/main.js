// The page: signs in, loads, and shows the view of the address until there is another one.

import { h, morph } from "./dom.js";
import { get, onUnauthorized } from "./api.js";
import { metrics } from "./metrics.js";
import { address } from "./router.js";
import { setToken, showTheme, takeTokenFromAddress } from "./session.js";
import { store } from "./store.js";
import { frame } from "../views/frame.js";
import { signIn } from "../views/signin.js";
import { overview } from "../views/overview.js";
import { deviceList } from "../views/devices.js";
import { devicePage } from "../views/device.js";
import { jobList } from "../views/jobs.js";
import { jobPage } from "../views/job.js";
import { backups } from "../views/backups.js";
import { images } from "../views/images.js";
import { events } from "../views/events.js";

const app = document.getElementById("app");
let view = null;
let shown = "";
let generation = 0;
let isSignedIn = false;
let failure = null;
let isScheduled = false;

function viewOf(parts) {
  switch (parts[0]) {
    case "devices": return parts[1] ? devicePage(parts[1], redraw) : deviceList(redraw);
    case "jobs": return parts[1] ? jobPage(parts[1], redraw) : jobList(redraw);
    case "backups": return backups(redraw);
    case "images": return images(redraw);
    case "events": return events(redraw);
    default: return overview(redraw);
  }
}

/// Another drawing at the next frame, however often it is asked for.
function redraw() {
  if (isScheduled) return;
  isScheduled = true;
  // A page in the background has no frames, and goes on all the same.
  const next = document.hidden ? (work) => setTimeout(work, 500) : requestAnimationFrame;
  next(() => {
    isScheduled = false;
    draw();
  });
}

function draw() {
  if (!isSignedIn) return show(signIn(enter, failure));
  if (!store.isLoaded) return show(
    frame(h("p", { class: "empty" }, failure ? "The service does not answer. Trying again …" : "Reading …"), redraw)
  );
  const { parts } = address();
  const key = parts.slice(0, 2).join("/");
  if (key !== shown || generation !== store.generation) {
    const isOther = key !== shown;
    view?.stop?.();
    view = viewOf(parts);
    shown = key;
    generation = store.generation;
    if (isOther) arrived();
  }
  show(frame(view.render(), redraw));
  view.drawn?.();
  // Another table may be where one was scrolled, or the window has another size.
  const box = document.querySelector(".table-scroll");
  box?.onscroll({ target: box });
}

function show(node) {
  const root = h("div", { id: "app" }, node);
  morph(app, root);
}

/// Who listens instead of looking hears where he is now.
function arrived() {
  document.title = `${view.title} – ploopd`;
  const main = document.getElementById("main");
  if (main && document.activeElement !== document.body) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function enter(token) {
  if (token !== undefined) setToken(token);
  failure = null;
  try {
    await get("/v1");
    isSignedIn = true;
    redraw();
    await load();
  } catch (problem) {
    failure = problem;
    if (problem.status !== 401 && problem.status !== 403 && problem.status !== 429) retry();
  }
  redraw();
}

async function load() {
  try {
    await store.load();
    failure = null;
    metrics.stop();
    metrics.start(redraw);
  } catch (problem) {
    failure = problem;
    if (problem.status === 401) return;
    retry();
  }
}

function retry() {
  setTimeout(() => (isSignedIn ? load() : enter()).then(redraw), 2000);
}

onUnauthorized((problem) => {
  failure = problem;
  isSignedIn = false;
  store.stop();
  metrics.stop();
  redraw();
});

store.subscribe((event) => {
  if (event) view?.event?.(event);
  redraw();
});
addEventListener("hashchange", () => {
  takeTokenFromAddress();
  redraw();
});
addEventListener("resize", redraw);
// What is said as “a minute ago” goes on without events.
setInterval(redraw, 5000);

showTheme();
takeTokenFromAddress();
enter();
