// A judgment on its way: key and body are kept until the server has acknowledged or refused them, over reloads too.
// The server answers the same key and body the same way, so sending again is harmless.

import { Refusal, Unreachable } from "./api.js";

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

export class Outbox {
  // `onWaiting(milliseconds)` is told before each pause; calling hurry() ends the pause at once.
  constructor({ api, prefix, onWaiting }) {
    this.api = api;
    this.prefix = prefix;
    this.onWaiting = onWaiting;
    this.hurry = () => {};
    addEventListener("online", () => this.hurry());
  }

  get waiting() {
    return Object.keys(sessionStorage).filter((name) => name.startsWith(this.prefix))
      .map((name) => name.slice(this.prefix.length));
  }

  // What is to be sent for an assignment: that which is already on its way, else `body` under a new key.
  prepare(assignment, body) {
    const name = this.prefix + assignment;
    const kept = sessionStorage.getItem(name);
    if (kept) return JSON.parse(kept);
    const sent = { submission_key: crypto.randomUUID ? crypto.randomUUID() : randomUuid(), ...body };
    sessionStorage.setItem(name, JSON.stringify(sent));
    return sent;
  }

  // Sends until there is a definite answer. Raises Refusal; a lost session (403) keeps the judgment for later.
  async deliver(assignment, body = {}) {
    const sent = this.prepare(assignment, body);
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      try {
        // What replaces an earlier judgment says which; everything else is a first one.
        const answer = await (sent.replaces ? this.api.revise(assignment, sent) : this.api.submit(assignment, sent));
        sessionStorage.removeItem(this.prefix + assignment);
        return answer;
      } catch (error) {
        if (error instanceof Refusal && error.status !== 403) sessionStorage.removeItem(this.prefix + assignment);
        if (!(error instanceof Unreachable)) throw error;
        this.onWaiting(pause);
        await new Promise((resolve) => { this.hurry = resolve; setTimeout(resolve, pause); });
      }
    }
  }
}

// crypto.randomUUID is missing on plain http outside localhost.
function randomUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
