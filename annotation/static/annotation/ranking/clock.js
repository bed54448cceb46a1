// Seconds of work: the page is visible and something was done within the last minute.

const STILL_WORKING_MS = 60_000;

export class Clock {
  constructor() {
    this.seconds = 0;
    this.lastAct = performance.now();
    this.lastTick = this.lastAct;
    for (const name of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchmove"]) {
      addEventListener(name, () => { this.#tick(); this.lastAct = performance.now(); }, { passive: true, capture: true });
    }
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#tick(true);
      else this.lastTick = performance.now();
    });
    setInterval(() => this.#tick(), 1000);
  }

  get isActive() { return !document.hidden && performance.now() - this.lastAct < STILL_WORKING_MS; }

  restart(seconds = 0) {
    this.seconds = seconds;
    this.lastTick = this.lastAct = performance.now();
  }

  read() {
    this.#tick();
    return Math.round(this.seconds * 10) / 10;
  }

  // Counts up to the end of the minute after the last act, and nothing while hidden.
  #tick(becomesHidden = false) {
    const now = performance.now();
    if (!document.hidden || becomesHidden) {
      const end = Math.min(now, this.lastAct + STILL_WORKING_MS);
      this.seconds += Math.max(0, end - this.lastTick) / 1000;
    }
    this.lastTick = now;
  }
}
