// Word-level differences between two completions, side by side in a dialog. jsdiff finds them.

import { nameOf, showHidden } from "./words.js";

// Two long texts with little in common are shown whole rather than compared for ever.
const LONGEST_MS = 500;

const byId = (id) => document.getElementById(id);

export class Differences {
  constructor() {
    this.pair = [1, 2];
    byId("differences-dialog").addEventListener("keydown", (event) => {
      const digit = /^(?:Digit|Numpad)([1-8])$/.exec(event.code);
      if (digit && Number(digit[1]) <= this.texts.length) this.#choose(Number(digit[1]));
    });
    for (const [index, id] of ["left", "right"].entries()) {
      byId(`differences-${id}`).addEventListener("change", (event) => {
        this.pair[index] = Number(event.target.value);
        this.#draw();
      });
    }
  }

  hold(completions) {
    this.texts = completions.map((completion) => showHidden(completion.text));
    this.pair = [1, 2];
    for (const id of ["left", "right"]) {
      byId(`differences-${id}`).replaceChildren(...this.texts.map((_, index) => new Option(`Completion ${nameOf(index + 1, this.texts.length)}`, index + 1)));
    }
  }

  open(position) {
    if (this.texts.length < 2) return;
    if (position && !this.pair.includes(position)) this.pair = [position, position === 1 ? 2 : 1];
    this.#draw();
    byId("differences-dialog").showModal();
  }

  // The digit takes the place of the older choice.
  #choose(position) {
    if (this.pair.includes(position)) return;
    this.pair = [this.pair[1], position];
    this.#draw();
  }

  #draw() {
    const [left, right] = this.pair;
    byId("differences-left").value = left;
    byId("differences-right").value = right;
    const [before, after] = [this.texts[left - 1], this.texts[right - 1]];
    const parts = globalThis.Diff.diffWordsWithSpace(before, after, { timeout: LONGEST_MS })
      ?? [{ value: before, removed: true }, { value: after, added: true }];
    byId("differences-left-text").replaceChildren(...parts.filter((part) => !part.added).map((part) => element(part, "del")));
    byId("differences-right-text").replaceChildren(...parts.filter((part) => !part.removed).map((part) => element(part, "ins")));
    const changed = parts.filter((part) => part.added || part.removed).length;
    byId("differences-count").textContent = changed ? "" : "Both texts are the same.";
  }
}

function element(part, tag) {
  const made = document.createElement(part.added || part.removed ? tag : "span");
  made.textContent = part.value;
  return made;
}
