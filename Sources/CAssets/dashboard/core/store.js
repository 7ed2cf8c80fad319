// What the page knows of the service: lists that are read once, and kept as they are now by the events that follow.

import { get, list } from "./api.js";
import { EventStream } from "./events.js";

const MOST_EVENTS = 2000;
export const ACTIVE = ["running", "paused", "cancelling", "queued"];

class Store {
  service = null;
  queue = null;
  devices = new Map();
  jobs = new Map();
  targets = new Map();
  exports = new Map();
  /// Newest first.
  events = [];
  connection = "connecting";
  isLoaded = false;
  /// Grows with each reading of everything: views read their own parts anew then.
  generation = 0;
  listeners = new Set();
  timers = new Map();

  constructor() {
    this.stream = new EventStream({
      onEvent: (event) => this.apply(event),
      onState: (state) => this.connectionIs(state),
      onReset: () => this.reload(),
    });
  }

  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell(event = null) {
    for (const listener of [...this.listeners]) listener(event);
  }

  connectionIs(state) {
    // Between two attempts it is still lost.
    if (state === "connecting" && this.connection === "lost") return;
    const isBack = state === "live" && this.connection === "lost";
    this.connection = state;
    this.tell();
    // Who is connected is nobody's event when the service was away.
    if (isBack) this.reload();
  }

  /// Until it has worked, or there is nobody any more who may.
  async reload() {
    while (this.isLoaded) {
      try {
        return await this.load();
      } catch {
        await new Promise((done) => setTimeout(done, 2000));
      }
    }
  }

  /// Reads everything, then listens from the earliest moment that a list has shown.
  async load() {
    this.stream.stop();
    const service = await get("/v1");
    const [devices, exports, queue, running, paused, newest, events] = await Promise.all([
      list("/v1/devices"), list("/v1/exports"), optional(get("/v1/queue")),
      list("/v1/jobs?state=running"), list("/v1/jobs?state=paused", { most: 1000 }),
      get("/v1/jobs?limit=200"), newestEvents(service.revision),
    ]);
    const targets = await optional(list("/v1/targets"));
    this.service = service;
    this.queue = queue;
    this.devices = byName(devices.items, "id");
    this.exports = byName(exports.items, "name");
    this.targets = byName(targets?.items ?? [], "name");
    this.seesTargets = targets !== null;
    this.jobs = byName([...newest.items, ...running.items, ...paused.items], "id");
    this.events = (events?.items ?? []).reverse();
    this.isLoaded = true;
    this.generation += 1;
    this.stream.start(service.revision);
    this.tell();
  }

  stop() {
    this.stream.stop();
    this.isLoaded = false;
  }

  apply(event) {
    const [kind, what] = event.type.split(".");
    const { object, subject } = event;
    // The last ones may have been read as a list, before what they changed was.
    if (event.revision !== null && !(this.events[0]?.revision >= event.revision)) {
      this.events.unshift(event);
      if (this.events.length > MOST_EVENTS) this.events.length = MOST_EVENTS;
    }
    if (kind === "device") this.put(this.devices, subject, object, what);
    if (kind === "job") this.put(this.jobs, subject, object, what);
    if (kind === "target") this.put(this.targets, subject, object, what);
    if (kind === "export" || kind === "client") {
      this.put(this.exports, subject, object, what);
      if (event.device) this.refreshSoon(`/v1/devices/${event.device}`, this.devices, event.device);
    }
    if (kind === "backup" && this.targets.size) this.refreshTargets();
    if (event.type === "job.state" || event.type === "job.created") {
      this.soon("queue", async () => (this.queue = await optional(get("/v1/queue"))));
    }
    this.tell(event);
  }

  /// What an event shows may be older than what is known already.
  put(things, name, object, what) {
    if (what === "deleted") things.delete(name);
    else if (object && !(things.get(name)?.revision > object.revision)) things.set(name, object);
  }

  refreshTargets() {
    this.soon("targets", async () => {
      this.targets = byName((await list("/v1/targets")).items, "name");
    });
  }

  refreshSoon(path, things, name) {
    this.soon(path, async () => this.put(things, name, await optional(get(path))));
  }

  /// Once, however often it is wanted meanwhile.
  soon(key, work) {
    if (this.timers.has(key)) return;
    this.timers.set(key, setTimeout(async () => {
      this.timers.delete(key);
      try {
        await work();
        this.tell();
      } catch {
        // The next event asks again.
      }
    }, 400));
  }
}

/// What a caller may not see, or what is gone by now, is not there.
export async function optional(promise) {
  try {
    return await promise;
  } catch (problem) {
    if (problem.status === 403 || problem.status === 404) return null;
    throw problem;
  }
}

/// Where those before are not known any more, there are fewer.
async function newestEvents(revision) {
  try {
    return await get(`/v1/events?after=${Math.max(0, revision - 500)}&limit=500`);
  } catch (problem) {
    if (problem.status !== 410) throw problem;
    return get("/v1/events?limit=500");
  }
}

const byName = (items, name) => new Map(items.map((item) => [item[name], item]));

export const store = new Store();
