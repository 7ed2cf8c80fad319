// The stream of events. EventSource cannot send a token, so it is read by fetch, and comes back by itself behind the
// last event that came.

import { get, headers } from "./api.js";

/// The service says something every 15 seconds; whoever is silent for so long is gone.
const SILENCE_MS = 40_000;
const LONGEST_PAUSE_MS = 10_000;

export class EventStream {
  /// - Parameters: what is called with each event, with `connecting`, `live` or `lost`, and when events were missed.
  constructor({ onEvent, onState, onReset }) {
    Object.assign(this, { onEvent, onState, onReset });
    this.lastID = null;
    this.isStopped = true;
  }

  /// - Parameter after: the revision behind which to begin.
  start(after) {
    this.stop();
    this.lastID = String(after);
    this.isStopped = false;
    this.run = this.goOn(this.run);
  }

  stop() {
    this.isStopped = true;
    this.abort?.abort();
    this.abort = null;
  }

  async goOn(before) {
    await before;
    let pause = 500;
    while (!this.isStopped) {
      this.onState("connecting");
      try {
        await this.listen(() => {
          pause = 500;
          this.onState("live");
        });
      } catch {
        // The pause below is all that there is to do about it.
      }
      if (this.isStopped) return;
      this.onState("lost");
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(pause * 1.6, LONGEST_PAUSE_MS);
    }
  }

  async listen(isConnected) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    let watchdog = setTimeout(() => this.abort?.abort(), SILENCE_MS);
    try {
      const response = await fetch("/v1/events", {
        headers: headers({ Accept: "text/event-stream", "Last-Event-ID": this.lastID }),
        cache: "no-store",
        signal,
      });
      // A token that is not good any more: who asks next says so to the page.
      if (response.status === 401) await get("/v1");
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      isConnected();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => this.abort?.abort(), SILENCE_MS);
        rest += value;
        const blocks = rest.split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this.take(block);
      }
    } finally {
      clearTimeout(watchdog);
    }
  }

  /// One event as it stands in the stream (WHATWG HTML, "Server-sent events").
  take(block) {
    let type = "";
    let data = "";
    for (const line of block.split("\n")) {
      const at = line.indexOf(":");
      if (at <= 0) continue;
      const value = line.slice(at + 1).trimStart();
      const name = line.slice(0, at);
      if (name === "id") this.lastID = value;
      else if (name === "event") type = value;
      else if (name === "data") data += value;
    }
    if (type === "reset") this.onReset();
    else if (data) this.onEvent(JSON.parse(data));
  }
}
