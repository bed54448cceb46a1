// Keys, buttons, dialogs and dragging, turned into calls. Decides nothing about the judgment.

const byId = (id) => document.getElementById(id);
const isTyping = (target) => target.matches?.("input, textarea, select, [contenteditable]");
const digitOf = (event) => Number(/^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] || 0);
// On a layout without Latin letters (Arabic, Cyrillic ...) the key's place on the board counts.
function letterOf({ key, code }) {
  if (key.length === 1 && key > "~" && code.startsWith("Key")) return code.slice(3).toLowerCase();
  return key.length === 1 ? key.toLowerCase() : key;
}

export function bindControls(act) {
  bindKeys(act);
  bindButtons(act);
  bindTexts(act);
  bindDialogs(act);
  bindDragging(act);
}

function bindKeys(act) {
  const always = { "?": () => open("help-dialog"), g: act.openGuideline, z: act.reviseLast };
  const working = {
    "=": act.pressTie,
    0: act.pressTie,
    Backspace: act.undo,
    u: act.undo,
    a: () => act.openAllBad(),
    c: () => open("cannot-judge-dialog"),
    s: () => act.openPassing("skip-dialog"),
    r: () => act.openPassing("report-dialog"),
    n: () => act.openNotes(),
    d: act.openDifferences,
    v: act.unblur,
    e: act.unfold,
    Enter: act.send,
    Escape: act.leaveRevision,
    ArrowLeft: () => act.pressArrow(-1),
    ArrowRight: () => act.pressArrow(1),
    ArrowUp: () => act.moveCurrent(-1),
    ArrowDown: () => act.moveCurrent(1),
  };
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && act.canWork()) { event.preventDefault(); act.send(); return; }
    // A held key repeats: it must not undo what it did.
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (isTyping(event.target)) { if (event.key === "Escape") leaveText(event, act); return; }
    const notes = event.target.closest?.(".notes");
    const handled = notes ? pressInNotes(event, notes, act) : pressOnBoard(event);
    if (handled) event.preventDefault();
  });

  // Whether the key meant something here.
  function pressOnBoard(event) {
    if (always[letterOf(event)]) { always[letterOf(event)](); return true; }
    // A focused button or link hears Enter itself.
    if (!act.canWork() || (event.key === "Enter" && event.target.closest("a, button, summary"))) return false;
    // The key's place on the board, so that Shift and French keyboards work too. On some layouts = is Shift+0.
    const digit = digitOf(event);
    if (digit && event.key !== "=") { act.pressDigit(digit, { jump: event.shiftKey }); return true; }
    const key = working[letterOf(event)];
    return Boolean(key) && key() !== false;
  }
}

function pressInNotes(event, notes, act) {
  const position = positionOf(notes);
  const digit = digitOf(event);
  const letter = letterOf(event);
  if (digit) { notes.querySelectorAll("[data-flag]")[digit - 1]?.click(); return true; }
  if (letter === "Escape") act.closeNotes(position);
  else if (letter === "n") act.openNotes(position + 1);
  else if (letter === "c") notes.querySelector("[data-note=comment]").focus();
  else if (letter === "w") act.writeBetter(position);
  else return false;
  return true;
}

// Escape leaves the text first, then the notes.
function leaveText(event, act) {
  const notes = event.target.closest(".notes");
  event.preventDefault();
  if (notes) act.closeNotes(positionOf(notes));
  else event.target.blur();
}

const positionOf = (element) => Number(element.closest("[data-position]")?.dataset.position);

function bindButtons(act) {
  byId("ranking").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    // After a mouse click, Enter should send and not press the same button again.
    if (event.detail > 0 && !button.closest("dialog, .notes")) button.blur();
    press(button, positionOf(button), act);
  });
  // A click on a card makes it the one that digits and notes are about; links and selections stay what they are.
  byId("completions").addEventListener("click", (event) => {
    if (!event.target.closest("button, a, textarea, input") && getSelection().isCollapsed) act.choose(positionOf(event.target));
  });
  byId("undo").addEventListener("click", act.undo);
  byId("send").addEventListener("click", act.send);
  byId("unblur").addEventListener("click", act.unblur);
}

function press(button, position, act) {
  const { place, move, step, open: dialog, flag, aspect, points } = button.dataset;
  if (place) act.setPlace(position, Number(place));
  else if (move === "tie") act.toggleTie(position);
  else if (move) act.move(position, move === "up" ? -1 : 1);
  else if (step) act.chooseStep(Number(step));
  else if (flag) act.toggleFlag(position, flag);
  else if (aspect) act.rate(position, aspect, Number(points));
  else if ("notes" in button.dataset) act.toggleNotes(position);
  else if ("doneNotes" in button.dataset) act.closeNotes(position);
  else if ("writeBetter" in button.dataset) act.writeBetter(position);
  else if ("dropBetter" in button.dataset) act.dropBetter(position);
  else if ("unfold" in button.dataset) act.unfold();
  else if (dialog === "guideline-dialog") act.openGuideline();
  else if (dialog === "differences-dialog") act.openDifferences();
  else if (dialog === "all-bad-dialog") act.openAllBad();
  else if (dialog === "skip-dialog" || dialog === "report-dialog") act.openPassing(dialog);
  else if (dialog) open(dialog);
  else if ("close" in button.dataset) button.closest("dialog").close();
}

function bindTexts(act) {
  byId("completions").addEventListener("input", ({ target }) => {
    if (target.dataset.note) act.write(positionOf(target), target.dataset.note, target.value);
  });
  byId("answer").addEventListener("input", ({ target }) => act.writeAnswer(target.value));
}

export function open(id) { if (byId(id) && !document.querySelector("dialog[open]")) byId(id).showModal(); }

// A dialog sends at once when one of its numbered reasons is pressed, or its form with a text of one's own.
function bindDialogs(act) {
  for (const form of document.querySelectorAll("#ranking dialog form[data-outcome]")) {
    const dialog = form.closest("dialog");
    const text = form.querySelector("textarea");
    const send = (reason, category = "other") => {
      dialog.close();
      if (form.dataset.outcome === "skip") act.skip(reason);
      else if (form.dataset.outcome === "report") act.report(category, reason);
      else act.sendOutcome(form.dataset.outcome, reason);
    };
    form.noValidate = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const missing = text.required && !text.value.trim();
      const error = form.querySelector(".error");
      if (error) error.hidden = !missing;
      text.setAttribute("aria-invalid", String(missing));
      if (missing) text.focus();
      else send(text.value.trim());
    });
    form.addEventListener("click", ({ target }) => {
      const quick = target.closest("[data-quick]");
      if (quick) send(quick.dataset.quick, quick.dataset.category);
    });
    dialog.addEventListener("keydown", (event) => {
      // The dialog may be closed by it: the page below must not hear the same key.
      event.stopPropagation();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); return; }
      if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
      const quick = form.querySelectorAll("[data-quick]")[digitOf(event) - 1];
      if (quick) { event.preventDefault(); quick.click(); }
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
