// The review page by keyboard. Keys of one letter act only within a card, so that nothing is decided by accident.

const cards = [...document.querySelectorAll("[data-card]")];

function go(step) {
  const at = cards.indexOf(document.activeElement?.closest("[data-card]"));
  const next = cards[Math.min(Math.max(at + step, 0), cards.length - 1)];
  next?.focus();
}

function press(card, what) {
  const button = card.querySelector(`button[value="${what}"]`);
  if (!button) return;
  const note = card.querySelector("textarea");
  if (what === "decline" && !note.value.trim()) note.focus();
  else button.click();
}

document.addEventListener("keydown", (event) => {
  const card = event.target.closest("[data-card]");
  if (event.target.matches("textarea")) {
    if (event.key === "Escape") card.focus();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      const button = card.querySelector('button[value="decline"], button[value="resolve"]');
      (button ?? card.querySelector("button[name=do]")).click();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const act = { j: () => go(1), k: () => go(-1), a: () => card && press(card, "approve"), d: () => card && press(card, "decline") }[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

// After a decision the next one is at hand; a refusal is read first.
const DECIDED = "rankloop.review.decided";
for (const form of document.querySelectorAll("form.decide")) {
  form.addEventListener("submit", () => sessionStorage.setItem(DECIDED, "yes"));
}
if (sessionStorage.getItem(DECIDED)) {
  sessionStorage.removeItem(DECIDED);
  if (!document.querySelector('[role="alert"]')) cards[0]?.focus();
}
