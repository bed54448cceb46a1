// Keys, buttons, dialogs and dragging, turned into calls. Decides nothing about the ranking.

const byId = (id) => document.getElementById(id);
const isTyping = (target) => target.matches?.("input, textarea, select, [contenteditable]");

export function bindControls(act) {
  bindKeys(act);
  bindButtons(act);
  bindDialogs(act);
  bindDragging(act);
}

function bindKeys(act) {
  const keys = {
    "=": act.pressTie,
    0: act.pressTie,
    Backspace: act.undo,
    u: act.undo,
    a: () => open("all-bad-dialog"),
    c: () => open("cannot-judge-dialog"),
    s: () => open("skip-dialog"),
    Enter: act.send,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    if (event.key === "?") { event.preventDefault(); open("help-dialog"); return; }
    // A focused button or link hears Enter itself.
    if (!act.canWork() || (event.key === "Enter" && event.target.closest("a, button, summary"))) return;
    // The key's place on the board, so that Shift and French keyboards work too.
    const digit = /^(?:Digit|Numpad)([1-8])$/.exec(event.code);
    // A held key repeats: it must not undo what it did.
    if (event.repeat) return;
    if (event.key === "=") { event.preventDefault(); act.pressTie(); return; }
    if (digit) { event.preventDefault(); act.pressDigit(Number(digit[1]), { tied: event.shiftKey }); return; }
    const key = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (key) { event.preventDefault(); key(); }
  });
}

function bindButtons(act) {
  byId("ranking").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    // After a mouse click, Enter should send and not press the same button again.
    if (event.detail > 0 && !button.closest("dialog")) button.blur();
    const position = Number(button.closest("[data-position]")?.dataset.position);
    const { place, move, choose, open: dialog } = button.dataset;
    if (place) act.setPlace(position, Number(place));
    else if (move === "tie") act.toggleTie(position);
    else if (move) act.move(position, move === "up" ? -1 : 1);
    else if (choose) act.choosePair(choose);
    else if (dialog) open(dialog);
    else if ("close" in button.dataset) button.closest("dialog").close();
    else if (button.dataset.reason) fillReason(button);
  });
  byId("undo").addEventListener("click", act.undo);
  byId("send").addEventListener("click", act.send);
}

function open(id) { if (byId(id) && !document.querySelector("dialog[open]")) byId(id).showModal(); }

function fillReason(button) {
  const reason = button.closest("form").querySelector("textarea");
  reason.value = button.dataset.reason;
  reason.focus();
}

function bindDialogs(act) {
  for (const form of document.querySelectorAll("#ranking dialog form[data-outcome]")) {
    const reason = form.querySelector("textarea");
    form.noValidate = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = reason.value.trim();
      const missing = reason.required && !text;
      const error = form.querySelector(".error");
      if (error) error.hidden = !missing;
      reason.setAttribute("aria-invalid", String(missing));
      if (missing) { reason.focus(); return; }
      form.closest("dialog").close();
      reason.value = "";
      if (form.dataset.outcome === "skip") act.skip(text);
      else act.sendOutcome(form.dataset.outcome, text);
    });
    reason.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
}

function bindDragging(act) {
  if (!globalThis.Sortable) return; // an extra: keys and buttons do everything
  const settings = {
    group: "ranking",
    animation: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 120,
    forceFallback: true,
    fallbackTolerance: 4,
    delay: 120,
    delayOnTouchOnly: true,
    onEnd: ({ item, to }) => {
      const sequence = to === byId("order") ? [...to.children].map((entry) => Number(entry.dataset.position)) : [];
      act.drag(Number(item.dataset.position), sequence);
    },
  };
  for (const id of ["order", "unplaced"]) globalThis.Sortable.create(byId(id), settings);
}
