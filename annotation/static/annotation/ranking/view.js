// Drawing the board. Knows the page's elements, the order and the notes, not the server.

import { button, drawCard, drawNotes, drawText, fromTemplate } from "./cards.js";
import { ORDINALS, describe, roleName, stepName } from "./words.js";

const byId = (id) => document.getElementById(id);
const cards = () => byId("completions").children;
export const cardAt = (position) => cards()[position - 1];

const TITLES = { demonstration: "Write the ideal answer", pair: "Which is better?", ranking: "Rank the completions" };

export function drawBoard(board, { mode, revising }) {
  const count = board.completions.length;
  byId("board-title").textContent = revising ? "Revise what you sent" : TITLES[mode];
  byId("rehearsal").hidden = !board.round.rehearsal;
  byId("messages").replaceChildren(...board.prompt.messages.map(drawMessage));
  byId("board").className = `is-${mode}`;
  byId("board").dataset.assignment = board.assignment;
  byId("completions").replaceChildren(...board.completions.map((completion) => drawCard(completion, count, board.asked)));
  const { strength_levels: levels } = board.asked;
  byId("scale").replaceChildren(...(mode === "pair" ? drawScale(levels) : []));
  setBlurred(board.sensitive.length > 0);
  byId("sensitive-what").textContent = board.sensitive.join(", ");
  for (const text of document.querySelectorAll("#ranking dialog textarea")) text.value = "";
  for (const word of document.querySelectorAll("[data-both]")) word.textContent = count === 2 ? "Both bad" : "All bad";
  byId("send").firstChild.textContent = revising ? "Send revision " : "Send ";
  byId("send").querySelector("kbd").textContent = mode === "demonstration" ? "Ctrl Enter" : "Enter";
}

function drawMessage(message) {
  const element = fromTemplate("message-template");
  element.classList.add(`from-${message.role}`);
  element.querySelector(".role").textContent = roleName(message.role);
  drawText(element.querySelector(".prose"), message);
  return element;
}

// From "A is significantly better" over "About the same" to "B is significantly better", keys 1, 2, 3 ...
function drawScale(levels) {
  const steps = Array.from({ length: 2 * levels + 1 }, (_, index) => index - levels);
  return steps.map((step, index) => {
    const name = stepName(step, levels);
    const made = button("", { step });
    made.append(
      Object.assign(document.createElement("kbd"), { textContent: index + 1, ariaHidden: "true" }),
      Object.assign(document.createElement("span"), { className: "step-name", textContent: name }),
      Object.assign(document.createElement("span"), { className: "step-mark", ariaHidden: "true", textContent: step === 0 ? "=" : (step < 0 ? "A" : "B") + "+".repeat(Math.abs(step)) }),
    );
    return made;
  });
}

export function drawOrder(order, levels) {
  if (order.count > 2) drawRanked(order);
  for (const card of cards()) drawPlace(card, order);
  for (const step of byId("scale").children) {
    step.setAttribute("aria-pressed", String(order.count === 2 && order.pairStep === Number(step.dataset.step)));
  }
  byId("undo").disabled = !order.canUndo;
  byId("send").disabled = !order.isComplete;
  byId("state").textContent = stateText(order, levels);
}

function drawRanked(order) {
  const ranked = order.tiers().flatMap((tier) => tier.map((p, index) => drawEntry(p, order.placeOf(p), index > 0)));
  const missing = order.positions((p) => order.placeOf(p) === null);
  byId("order").replaceChildren(...ranked);
  byId("unplaced").replaceChildren(...missing.map((p) => drawEntry(p, null, false)));
  byId("unplaced-title").hidden = missing.length === 0;
}

function drawEntry(position, place, tiedAbove) {
  const element = fromTemplate("entry-template");
  const snippet = cardAt(position).querySelector(".prose").textContent.trim().replace(/\s+/g, " ").slice(0, 90);
  element.dataset.position = position;
  element.classList.toggle("tied", tiedAbove);
  element.querySelector(".entry-place").textContent = tiedAbove ? "=" : place ? ORDINALS[place - 1] : "";
  element.querySelector(".card-number").textContent = position;
  element.querySelector(".entry-text").textContent = snippet || "(empty)";
  element.querySelector(".for-ears").textContent = `${place ? ORDINALS[place - 1] : "not placed"}${tiedAbove ? ", tied" : ""}: completion`;
  return element;
}

function drawPlace(card, order) {
  const position = Number(card.dataset.position);
  const place = order.placeOf(position);
  const tied = order.tiedWith(position).length > 0;
  const isBest = place === 1 && !(order.count === 2 && tied);
  card.classList.toggle("placed", place !== null);
  card.classList.toggle("best", isBest);
  const placeName = place === null ? "" : `${tied ? "tied " : ""}${ORDINALS[place - 1]}`;
  card.querySelector(".place").textContent = order.count === 2 ? (isBest ? "better" : "") : placeName;
  for (const rank of card.querySelectorAll("[data-place]")) rank.setAttribute("aria-pressed", String(Number(rank.dataset.place) === place));
  card.querySelector("[data-move=tie]").setAttribute("aria-pressed", String(tied));
  for (const move of ["up", "down"]) card.querySelector(`[data-move=${move}]`).disabled = place === null;
}

function stateText(order, levels) {
  const left = order.count - order.placedCount;
  if (order.count === 2) return order.isComplete ? `${describe(order, levels)}.` : "Choose on the scale.";
  if (left === order.count) return `Place all ${order.count} to send.`;
  return left ? `${left} more to place.` : describe(order, levels);
}

// Which card the next digit places; `focus` also brings it into sight and to a screen reader.
export function drawCursor(position, { focus }) {
  for (const card of cards()) card.classList.toggle("current", Number(card.dataset.position) === position);
  const card = position && cardAt(position);
  if (focus && card) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }
}

export function drawAllNotes(notes) { for (const card of cards()) drawNotes(card, notes); }

export function openNotes(position, open) {
  for (const card of cards()) {
    const here = open && Number(card.dataset.position) === position;
    card.querySelector(".notes").hidden = !here;
    card.querySelector("[data-notes]").setAttribute("aria-expanded", String(here));
  }
  if (open) cardAt(position).querySelector(".notes button:not([hidden]), .notes textarea").focus();
  else cardAt(position)?.focus({ preventScroll: true });
}

export function drawAnswer(text) {
  const area = byId("answer");
  area.value = text;
  area.dispatchEvent(new Event("input", { bubbles: true })); // for the preview
}

export function drawAnswerState(text) {
  const words = text.trim() ? text.trim().split(/\s+/).length : 0;
  byId("send").disabled = words === 0;
  byId("undo").disabled = true;
  byId("state").textContent = words ? `${words.toLocaleString("en")} word${words === 1 ? "" : "s"}.` : "Write the answer to send it.";
}

export function showBoard(visible) {
  byId("board").hidden = !visible;
  byId("idle").hidden = visible;
}

export function showIdle({ title, text = "", again = null }) {
  showBoard(false);
  byId("idle-title").textContent = title;
  byId("idle-text").textContent = text;
  byId("idle-again").hidden = !again;
  byId("idle-again").onclick = again;
}

export function drawProgress({ today, left, round }) {
  const rest = left > 0 ? ` · about ${left.toLocaleString("en")} left for you` : "";
  byId("progress").textContent = today === null ? "" : `${today.toLocaleString("en")} done today${rest}`;
  byId("round-progress").hidden = !round;
  if (!round) return;
  byId("round-progress-bar").max = round.places;
  byId("round-progress-bar").value = round.filled;
  byId("round-progress-text").textContent = `${round.name}: ${round.filled.toLocaleString("en")} of ${round.places.toLocaleString("en")} places filled`;
}

// Nothing is changed while it is on its way, by keys neither.
export const isLocked = () => byId("board").inert;

export function lock(locked) {
  byId("board").inert = locked;
  byId("board").setAttribute("aria-busy", String(locked));
}

// Neither to be seen nor to be heard.
function setBlurred(blurred) {
  byId("board").classList.toggle("is-blurred", blurred);
  byId("sensitive").hidden = !blurred;
  const hidden = byId("board").querySelectorAll(".message .prose, .completion > .prose, #order, #unplaced");
  for (const element of hidden) element.inert = blurred;
}

export const unblur = () => setBlurred(false);
export const isBlurred = () => byId("board").classList.contains("is-blurred");

export function noteKept(text) { byId("kept").textContent = text; }
