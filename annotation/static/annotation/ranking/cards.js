// Drawing one completion's card: its text, its buttons, its notes.

import { ORDINALS, nameOf } from "./words.js";

// Longer texts are folded behind a button: never cut, and never scrolled within.
const FOLD_ABOVE = 6000; // characters
const POINTS = 5;

// The one place where HTML of the server comes in. The server has cleaned it by an allow-list.
export function setCleanedHtml(element, html) { element.innerHTML = html; }

export function fromTemplate(id) { return document.getElementById(id).content.firstElementChild.cloneNode(true); }

export function button(text, dataset, { className = "quiet", label = "" } = {}) {
  const made = Object.assign(document.createElement("button"), { type: "button", className, textContent: text });
  Object.assign(made.dataset, dataset);
  if (label) made.setAttribute("aria-label", label);
  return made;
}

export function drawCard(completion, count, asked) {
  const card = fromTemplate("card-template");
  const { position } = completion;
  const name = nameOf(position, count);
  card.dataset.position = position;
  card.setAttribute("aria-label", `Completion ${name}`);
  card.querySelector(".card-number").textContent = name;
  card.querySelector("h3").textContent = `Completion ${name}`;
  drawText(card.querySelector(".prose"), completion);
  const ranks = card.querySelector(".rank-buttons");
  ranks.setAttribute("aria-label", `Place of completion ${name}`);
  for (let place = 1; place <= count; place += 1) ranks.append(button(ORDINALS[place - 1], { place }));
  const moves = card.querySelector(".move-buttons");
  moves.setAttribute("aria-label", `Move completion ${name}`);
  for (const move of moves.children) move.setAttribute("aria-label", `${move.title}: completion ${name}`);
  card.querySelector("[data-notes] .visually-hidden").textContent = ` on completion ${name}`;
  drawNotesForm(card.querySelector(".notes"), name, asked);
  return card;
}

export function drawText(prose, { text, html }) {
  setCleanedHtml(prose, html);
  if (text.length <= FOLD_ABOVE) return;
  prose.classList.add("folded");
  const words = text.trim().split(/\s+/).length.toLocaleString("en");
  prose.after(button(`Show all ${words} words`, { unfold: "" }, { className: "quiet unfold" }));
}

export function unfold(within) {
  for (const prose of within.querySelectorAll(".folded")) prose.classList.remove("folded");
  for (const unfolder of within.querySelectorAll("[data-unfold]")) unfolder.remove();
}

function drawNotesForm(form, name, asked) {
  form.setAttribute("aria-label", `Notes on completion ${name}`);
  const flags = form.querySelector(".flags");
  flags.hidden = asked.flags.length === 0;
  asked.flags.forEach((flag, index) => {
    const made = button(` ${flag}`, { flag });
    made.prepend(Object.assign(document.createElement("kbd"), { textContent: index + 1 }));
    flags.append(made);
  });
  for (const aspect of asked.aspects) {
    const row = fromTemplate("aspect-template");
    row.querySelector(".aspect-name").textContent = aspect;
    const group = row.querySelector("[role=group]");
    group.setAttribute("aria-label", `${aspect}, of completion ${name}`);
    for (let points = 1; points <= POINTS; points += 1) group.append(button(points, { aspect, points }));
    form.querySelector(".aspects").append(row);
  }
  for (const [field, label] of [["comment", "Comment on"], ["better", "A better answer than"]]) {
    form.querySelector(`[data-note=${field}]`).setAttribute("aria-label", `${label} completion ${name}`);
  }
}

// Shows what the notes say; a textarea in use is left alone.
export function drawNotes(card, notes) {
  const position = Number(card.dataset.position);
  const note = notes.of(position);
  const summary = notes.summary(position);
  card.querySelector(".notes-summary").textContent = summary;
  card.querySelector(".notes-summary").hidden = !summary;
  for (const flag of card.querySelectorAll("[data-flag]")) flag.setAttribute("aria-pressed", String(note.flags.includes(flag.dataset.flag)));
  for (const rating of card.querySelectorAll("[data-aspect]")) {
    rating.setAttribute("aria-pressed", String(note.aspects[rating.dataset.aspect] === Number(rating.dataset.points)));
  }
  for (const field of ["comment", "better"]) {
    const area = card.querySelector(`[data-note=${field}]`);
    if (area !== document.activeElement) area.value = note[field];
  }
  showBetter(card, Boolean(note.better));
}

export function showBetter(card, shown) {
  const area = card.querySelector("[data-note=better]");
  if (area === document.activeElement) return;
  card.querySelector(".better").hidden = !shown;
  card.querySelector("[data-write-better]").hidden = shown;
}
