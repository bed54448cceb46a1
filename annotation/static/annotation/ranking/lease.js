// The reservations this page holds: renewed while somebody works, warned of before they run out.

import { Refusal } from "./api.js";
import { notice } from "./notices.js";

const LOOK_MS = 5000;
const WARN_MS = 90_000;

export class Lease {
  constructor({ api, clock }) {
    this.api = api;
    this.clock = clock;
    this.held = null;
    this.ahead = null;
    setInterval(() => this.#look(), LOOK_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#look(); });
  }

  hold(board) {
    this.held = board && this.#entry(board);
    this.ahead = null;
    notice("lease", "");
  }

  holdAhead(board) { this.ahead = board && this.#entry(board); }

  // Whether a comparison fetched ahead is still ours for a while; if not, it is better claimed anew.
  isGood(board) {
    const entry = this.ahead?.assignment === board.assignment ? this.ahead : this.#entry(board);
    return !entry.lost && entry.until - Date.now() > 20_000;
  }

  async renewNow() {
    for (const entry of [this.held, this.ahead]) if (entry && !entry.lost) await this.#renew(entry);
  }

  #entry(board) {
    // Seconds from now, not the server's time of day: clocks differ.
    const length = board.lease_seconds * 1000;
    return { assignment: board.assignment, until: Date.now() + length, length, lost: false };
  }

  #look() {
    const { held } = this;
    if (!held || held.lost) return;
    const left = held.until - Date.now();
    if (this.clock.isActive && left < held.length / 2) this.renewNow();
    // Said even while it is being renewed: the server may not be reached.
    if (left <= 0) this.#lose(held, "Your reservation has run out. Your ranking is kept: you can still send it, and it counts unless somebody has taken the place.");
    else if (left < Math.min(WARN_MS, held.length / 3)) {
      const minutes = Math.max(1, Math.round(left / 60_000));
      notice("lease", `This comparison is reserved for you for about ${minutes} more minute${minutes > 1 ? "s" : ""}.`, {
        action: { text: "Keep it", run: () => this.renewNow() },
      });
    }
  }

  async #renew(entry) {
    try {
      const answer = await this.api.renew(entry.assignment);
      Object.assign(entry, this.#entry({ ...answer, assignment: entry.assignment }));
      if (entry === this.held) notice("lease", "");
    } catch (error) {
      if (error instanceof Refusal && error.status === 409) this.#lose(entry, error.message);
    }
  }

  #lose(entry, text) {
    entry.lost = true;
    if (entry === this.held) notice("lease", text, { action: { text: "Reserve it again", run: () => this.#renew(entry) } });
  }
}
