// How things are called, on the page and for ears.

export const ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th"];
const ROLES = { system: "System prompt", user: "User", assistant: "Assistant" };
const STRENGTHS = { 1: ["better"], 2: ["slightly better", "better"], 3: ["slightly better", "better", "significantly better"] };

export const roleName = (role) => ROLES[role] || role;

// Two are A and B, more are numbered: what is shown keeps its name whatever its rank.
export const nameOf = (position, count) => (count === 2 ? "AB"[position - 1] : String(position));

// A step on a pair's scale of that many levels: -2 of 3 is "A is better".
export function stepName(step, levels) {
  if (step === 0) return "About the same";
  return `${step < 0 ? "A" : "B"} is ${STRENGTHS[levels][Math.abs(step) - 1]}`;
}

// "3 > 1 = 4 > 2", or for a pair "A is slightly better".
export function describe(order, levels) {
  if (order.count === 2) return order.isComplete ? stepName(order.pairStep, levels) : "";
  return order.tiers().map((tier) => tier.join(" = ")).join(" > ");
}

// What has just been done to one completion.
export function spoken(order, position, levels) {
  if (order.count === 2) return describe(order, levels) || "Not chosen yet.";
  const place = order.placeOf(position);
  const left = order.count - order.placedCount;
  const tied = order.tiedWith(position);
  const where = place === null ? "is not placed any more" : `is ${ORDINALS[place - 1]}${tied.length ? `, tied with ${tied.join(" and ")}` : ""}`;
  return `Completion ${position} ${where}. ${left ? `${left} left to place.` : "All are placed; Enter sends."}`;
}

// As the server's HTML shows them: characters that nobody sees but that change what is read.
const HIDDEN = /[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]|[\u{e0000}-\u{e007f}]|(?<=[\u0000-\u052f]|^)[\u200c\u200d]/gu;

export const showHidden = (text) => text.replace(HIDDEN, (character) => `[U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
