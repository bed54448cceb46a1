// How far I am today, and how far the round is. Counted here between fetches.

import { drawProgress } from "./view.js";

const FETCH_EVERY = 10; // judgments

export class Progress {
  constructor(api, { left }) {
    this.api = api;
    this.today = null; // until it is told: a day begins at midnight where the annotator is
    this.left = left;
    this.rounds = [];
    this.roundName = "";
    this.sinceFetch = 0;
  }

  // The round on the board; before the first board, or when it is not among the open ones any more, the one that is next.
  get round() { return this.rounds.find((round) => round.name === this.roundName) ?? this.rounds[0]; }

  draw() { drawProgress(this); }

  showRound(name) {
    this.roundName = name;
    this.draw();
  }

  count() {
    this.today += 1;
    if (this.round) this.round.filled = Math.min(this.round.filled + 1, this.round.places);
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

  async fetch() {
    this.sinceFetch = 0;
    try {
      const told = await this.api.progress(new Date(new Date().setHours(0, 0, 0, 0)));
      Object.assign(this, { today: told.done_today, left: told.left, rounds: told.rounds });
      this.draw();
    } catch { /* it is told again later */ }
  }
}
