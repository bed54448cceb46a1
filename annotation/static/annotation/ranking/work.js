// What the annotator has done so far on one comparison, in all its forms: a ranking, a pair, a demonstration. Pure.

import { Notes } from "./notes.js";
import { Order } from "./order.js";
import { spoken } from "./words.js";

export class Work {
  constructor(board) {
    const count = board.completions.length;
    this.isDemonstration = board.kind === "demonstration";
    this.mode = this.isDemonstration ? "demonstration" : count === 2 ? "pair" : "ranking"; // what is asked for
    this.levels = board.asked.strength_levels;
    this.order = new Order(count);
    this.notes = new Notes(board.completions.map((completion) => completion.text), board.asked);
    this.answer = "";
    this.cursor = null; // the card that the next digit places
    // The key of the judgment that is revised; null for a first one.
    this.revises = board.judgment?.submission_key ?? null;
    const kept = board.judgment ? fromJudgment(board.judgment) : board.draft || {};
    this.activeSeconds = Number(kept.active_seconds) || 0;
    const placed = this.order.restore(kept.places, kept.strength, this.levels);
    const noted = this.notes.restore(kept.notes);
    this.answer = String(kept.answer || "");
    this.restored = placed || noted || Boolean(this.answer);
    this.isChanged = false; // since it came onto the board
  }

  get isComplete() { return this.isDemonstration ? Boolean(this.answer.trim()) : this.order.isComplete; }

  firstUnplaced() { return this.order.positions((position) => this.order.placeOf(position) === null)[0] ?? null; }

  // Changes when, and only when, the judgment does.
  fingerprint() { return JSON.stringify([this.order.places, this.order.strength]); }

  toDraft(activeSeconds) {
    return { places: this.order.places, strength: this.order.strength, notes: this.notes.toSend(), answer: this.answer, active_seconds: activeSeconds };
  }

  toSend(outcome, activeSeconds, reason = "") {
    const body = { outcome, reason, active_seconds: activeSeconds };
    if (this.revises) body.replaces = this.revises;
    if (this.isDemonstration) {
      if (outcome === "demonstrated") body.text = this.answer;
      return body;
    }
    body.notes = this.notes.toSend();
    if (outcome !== "ranked") return body;
    body.ranks = this.order.ranks();
    if (this.mode === "pair" && this.levels > 1) body.strength = this.order.strength;
    return body;
  }

  greeting() {
    const what = { demonstration: "Write an answer", pair: "Two completions", ranking: `${this.order.count} completions` }[this.mode];
    if (this.revises) return `${what}. You are revising what you sent.`;
    return `${what}. New comparison.${this.restored ? " Your earlier steps are restored." : ""}`;
  }

  spoken(position) { return spoken(this.order, position, this.levels); }
}

// The time goes on from there: the newest form of a judgment has all of it.
function fromJudgment({ outcome, ranks, strength, notes, text, active_seconds }) {
  return { places: outcome === "ranked" ? ranks : null, strength, notes, answer: text, active_seconds };
}
