// How far I am today, and how far the round is. Counted here between fetches.

import { drawProgress } from "./view.js";

const FETCH_EVERY = 10; // judgments

export class Progress {
  constructor(api, { today, left }) {
    this.api = api;
    this.today = today;
    this.left = left;
    this.rounds = [];
    this.sinceFetch = 0;
  }

  draw() { drawProgress(this); }

  count() {
    this.today += 1;
    if (this.rounds.length) this.rounds[0].filled = Math.min(this.rounds[0].filled + 1, this.rounds[0].places);
    this.pass();
  }

  pass() {
    this.left = Math.max(0, this.left - 1);
    this.sinceFetch += 1;
    this.draw();
    if (this.sinceFetch >= FETCH_EVERY) this.fetch();
  }

  nothingLeft() {
    this.left = 0;
    this.draw();
    this.fetch();
  }

  // Today is the annotator's own: since midnight where they are.
  async fetch() {
    this.sinceFetch = 0;
    try {
      const told = await this.api.progress(new Date(new Date().setHours(0, 0, 0, 0)));
      Object.assign(this, { today: told.done_today, left: told.left, rounds: told.rounds });
      this.draw();
    } catch { /* it is told again later */ }
  }
}
