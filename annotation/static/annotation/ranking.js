// The ranking page: claim, judge, send, next. Everything that is sent may be sent again without harm.
//
// One comparison is on the board (`board`), the next is fetched ahead (`ahead`, a promise). What the annotator does
// lives in a Work (`work`), goes to the server as a draft, and is only ever dropped after a definite answer.

import { Api, Refusal } from "./ranking/api.js";
import { unfold } from "./ranking/cards.js";
import { Clock } from "./ranking/clock.js";
import { bindControls, open } from "./ranking/controls.js";
import { Differences } from "./ranking/differences.js";
import { Guideline } from "./ranking/guideline.js";
import { Lease } from "./ranking/lease.js";
import { announce, notice } from "./ranking/notices.js";
import { Outbox } from "./ranking/outbox.js";
import { Progress } from "./ranking/progress.js";
import { Work } from "./ranking/work.js";
import * as view from "./ranking/view.js";

const DRAFT_PAUSE_MS = 500;
const RETRY_CLAIM_MS = 5000;

const page = document.getElementById("ranking");
const api = new Api(page.dataset.api);
const clock = new Clock();
const lease = new Lease({ api, clock });
const outbox = new Outbox({
  api,
  prefix: `rankloop.send.${page.dataset.user}.${page.dataset.slug}.`,
  onWaiting: (pause) => notice("sending", `The server can't be reached. Your judgment is kept here and is sent again in ${Math.round(pause / 1000)} s.`, {
    action: { text: "Send now", run: () => outbox.hurry() },
  }),
});
const progress = new Progress(api, { left: Number(page.dataset.left) });
const differences = new Differences();
const guideline = new Guideline(api, { newest: Number(page.dataset.guideline), read: Number(page.dataset.guidelineRead) });

let board = null;
let work = null;
let sending = false;
let ahead = null;
let lastSent = null;
let draftTimer = null;
let pollTimer = null;

// --- from the server ---

async function next() {
  clearTimeout(pollTimer);
  clearTimeout(draftTimer);
  draftTimer = null;
  const fetched = ahead;
  ahead = null;
  let following = fetched && await fetched;
  try {
    if (!following || !lease.isGood(following)) following = await claim();
  } catch (error) {
    return claimFailed(error);
  }
  if (!following) return nothingLeft();
  show(following);
}

async function claim() {
  try {
    return await api.claim();
  } catch (error) {
    // A reservation ended in this very moment, in another tab say: what is next now?
    if (error.status === 409) return api.claim();
    throw error;
  }
}

function show(given) {
  clearTimeout(pollTimer); // what is on the board now must not be replaced
  notice("draft", "");
  board = given;
  work = new Work(given);
  clock.restart(work.activeSeconds);
  lease.hold(work.revises ? null : given);
  view.drawBoard(given, { mode: work.mode, revising: Boolean(work.revises) });
  view.showBoard(true);
  view.lock(false);
  differences.hold(given.completions);
  guideline.heard(given.guideline);
  progress.showRound(given.round.name);
  if (work.isDemonstration) view.drawAnswer(work.answer);
  else view.drawAllNotes(work.notes);
  work.cursor = work.firstUnplaced();
  view.drawCursor(work.mode === "ranking" ? work.cursor : null, { focus: false });
  redraw();
  view.noteKept(work.restored && !work.revises ? "Restored from where you left it." : "");
  announce(work.greeting());
  tellRevision();
  scrollTo({ top: 0 });
  document.getElementById("board-title").focus({ preventScroll: true });
  if (!work.revises) fetchAhead(given);
}

// Errors of fetching ahead are nobody's business: the claim that follows tells them.
function fetchAhead(held) {
  ahead = api.claim({ prefetch: true, holding: held.assignment }).catch(() => null)
    // Our own reservation may have run out and been given to us again: that is no next one.
    .then((fetched) => (fetched?.assignment === held.assignment ? null : fetched));
  ahead.then((fetched) => { if (board === held) lease.holdAhead(fetched); });
}

function clearBoard() {
  board = null;
  work = null;
  lease.hold(null);
}

function nothingLeft() {
  clearBoard();
  progress.nothingLeft();
  tellRevision();
  const seconds = Number(page.dataset.pollSeconds);
  view.showIdle({
    title: progress.today || lastSent ? "All done for now" : "Nothing to rank right now",
    text: `Either everything is done, or others are working on what is left. New work shows up here by itself: this page looks every ${seconds} seconds.`,
    again: next,
  });
  announce("Nothing left to rank right now.");
  poll(seconds * 1000);
}

function claimFailed(error) {
  const refused = error instanceof Refusal;
  clearBoard();
  if (refused && error.status === 403) tellSignedOut(next);
  view.showIdle({
    title: refused ? "No comparison for now" : "The server can't be reached",
    text: refused ? error.message : "Nothing is lost. This page tries again by itself.",
    again: next,
  });
  poll(refused ? Number(page.dataset.pollSeconds) * 1000 : RETRY_CLAIM_MS);
}

function poll(milliseconds) {
  clearTimeout(pollTimer);
  pollTimer = setTimeout(() => (document.hidden ? poll(milliseconds) : next()), milliseconds);
}

function tellSignedOut(again) {
  notice("session", "You are signed out. Your work is kept.", {
    kind: "bad",
    link: { href: page.dataset.signIn, text: "Sign in in another tab" },
    action: { text: "I am back: try again", run: () => { notice("session", ""); again(); } },
  });
}

// --- sending ---

async function send() {
  if (board && !sending && work.isComplete) await deliver(board.assignment, work.toSend(work.isDemonstration ? "demonstrated" : "ranked", clock.read()));
}

async function sendOutcome(outcome, reason) {
  if (board && !sending) await deliver(board.assignment, work.toSend(outcome, clock.read(), reason));
}

async function deliver(assignment, body) {
  const focused = document.activeElement;
  sending = true;
  clearTimeout(draftTimer);
  draftTimer = null;
  view.lock(true);
  view.noteKept("Sending …");
  try {
    const answer = await outbox.deliver(assignment, body);
    if (!body.replaces) progress.count();
    lastSent = assignment;
    notice("sent", answer.counted ? "" : "Kept, but not counted: your reservation had run out and somebody else had taken the place.");
    await next();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    await refused(error, () => deliver(assignment, body));
  } finally {
    sending = false;
    notice("sending", "");
    if (!document.getElementById("notice-session")) view.lock(false);
    // Refused: whoever was writing goes on where they were.
    if (board?.assignment === assignment && focused?.isConnected) focused.focus({ preventScroll: true });
  }
}

async function refused(error, again) {
  view.noteKept("");
  if (error.status === 403) return tellSignedOut(again);
  notice("sent", error.message, { kind: "bad" });
  // 400: to be mended here. Otherwise this comparison is over for us (judged already, or not ours): go on.
  if (error.status === 400) saveDraft();
  else await next();
}

// Skips and reports: both leave the comparison to others.
async function pass(request) {
  if (!board || sending) return;
  sending = true;
  view.lock(true);
  try {
    await request(board.assignment);
    progress.pass();
    notice("sent", "");
    await next();
  } catch (error) {
    if (error instanceof Refusal) await refused(error, () => pass(request));
    else notice("sent", "The server can't be reached, so nothing was sent. Try again in a moment.");
  } finally {
    sending = false;
    view.lock(false);
  }
}

// --- revising ---

async function revise(assignment) {
  if (!assignment || sending || work?.revises) return;
  sending = true;
  try {
    if (draftTimer !== null) await saveDraft();
    const given = await api.board(assignment);
    if (!given.judgment) return notice("sent", "That comparison has not been judged yet.");
    if (given.judgment.outcome === "withdrawn") return notice("sent", "You have withdrawn that judgment.");
    if (Date.parse(given.revisable_until) < Date.now()) return notice("sent", "The time to revise that judgment is over. You can still withdraw it under “My work”.");
    // What is on the board stays reserved; it comes back with its draft.
    giveBackAhead();
    show(given);
  } catch (error) {
    notice("sent", error instanceof Refusal ? error.message : "The server can't be reached. Try again in a moment.", { kind: "bad" });
  } finally {
    sending = false;
  }
}

function leaveRevision() {
  if (!work?.revises || sending) return false;
  sending = true;
  next().finally(() => { sending = false; });
  return true;
}

function tellRevision() {
  if (work?.revises) {
    notice("revise", "You are revising a judgment you have sent. Sending replaces it; both are kept.", { kind: "", action: { text: "Leave it as it is (Esc)", run: leaveRevision } });
  } else if (lastSent) {
    notice("revise", "Sent.", { kind: "quiet-notice", action: { text: "Revise it (z)", run: () => revise(lastSent) } });
  } else notice("revise", "");
}

// --- judging ---

function redraw() {
  if (work.isDemonstration) view.drawAnswerState(work.answer);
  else view.drawOrder(work.order, work.levels);
}

// Runs one step on the order; says what came of it, and keeps it.
function step(change, position = null) {
  if (!board || sending || work.isDemonstration) return;
  const before = work.fingerprint();
  const places = [...work.order.places];
  change(work.order);
  redraw();
  if (work.fingerprint() === before) return;
  // Undo says which completion it took back.
  announce(work.spoken(position ?? work.order.positions((other) => work.order.placeOf(other) !== places[other - 1])[0] ?? 1));
  keepDraft();
}

function pressDigit(digit, { jump }) {
  if (work.mode === "pair") {
    const chosen = digit - work.levels - 1;
    if (chosen <= work.levels) step((order) => order.choosePair(chosen));
  } else if (work.mode === "ranking" && digit <= work.order.count) {
    if (jump) choose(digit);
    else place(work.cursor, digit);
  }
}

// Places the card with the cursor, which goes on to the next card without a place.
function place(position, rank) {
  step((order) => { if (order.placeOf(position) !== rank) order.setPlace(position, rank); }, position);
  choose(work.firstUnplaced() || position);
}

function pressTie() {
  if (work.mode === "pair") return step((order) => order.choosePair(0));
  const { order, cursor } = work;
  const last = order.lastPlaced && order.placeOf(order.lastPlaced);
  if (last) place(cursor, last);
  else announce("Place one first; = then gives the next the same place.");
}

function choose(position) {
  if (!board || work.mode !== "ranking" || !position) return;
  work.cursor = position;
  view.drawCursor(position, { focus: true });
}

function pressArrow(by) {
  if (work.mode === "pair") {
    const now = work.order.pairStep ?? 0;
    const chosen = Math.max(-work.levels, Math.min(work.levels, now + by));
    return step((order) => order.choosePair(chosen));
  }
  if (work.mode !== "ranking") return false;
  choose(Math.max(1, Math.min(work.order.count, work.cursor + by)));
}

function moveCurrent(by) {
  // A card without a place can't move: the arrow scrolls the page as ever.
  if (work.mode !== "ranking" || work.order.placeOf(work.cursor) === null) return false;
  step((order) => order.move(work.cursor, by), work.cursor);
}

function changeNotes(position, change) {
  if (!board || sending) return;
  change(work.notes);
  view.drawAllNotes(work.notes);
  keepDraft();
}

function openNotes(position = work.cursor || 1) {
  if (work.isDemonstration) return false;
  if (view.isBlurred()) return announce("It is blurred. Press v to show it first.");
  const wanted = position > work.order.count ? 1 : position;
  mark(wanted);
  view.openNotes(wanted, true);
}

// The card that digits and notes are about, without moving the focus.
function mark(position) {
  if (work.mode !== "ranking") return;
  work.cursor = position;
  view.drawCursor(position, { focus: false });
}

function writeBetter(position) {
  const note = work.notes.of(position);
  if (!note.better) changeNotes(position, () => { note.better = board.completions[position - 1].text; });
  view.cardAt(position).querySelector("[data-note=better]").focus();
}

bindControls({
  canWork: () => Boolean(board) && !sending && !view.isLocked(),
  pressDigit,
  pressTie,
  pressArrow,
  moveCurrent,
  choose,
  undo: () => { step((order) => order.undo()); choose(work.firstUnplaced()); },
  send,
  sendOutcome,
  skip: (reason) => pass((assignment) => api.skip(assignment, reason)),
  report: (category, text) => pass((assignment) => api.report(assignment, category, text)),
  openPassing: (dialog) => {
    if (!work?.revises) open(dialog);
    else announce("You have judged this one already: revise it, or press Escape to leave it as it is.");
  },
  openAllBad: () => { if (work && !work.isDemonstration) open("all-bad-dialog"); },
  setPlace: (position, rank) => { step((order) => order.setPlace(position, rank), position); mark(position); },
  toggleTie: (position) => step((order) => order.toggleTie(position), position),
  move: (position, by) => step((order) => order.move(position, by), position),
  chooseStep: (chosen) => step((order) => order.choosePair(chosen)),
  drag: (position, sequence) => { step((order) => order.drag(position, sequence), position); redraw(); },
  toggleFlag: (position, flag) => {
    changeNotes(position, (notes) => notes.toggleFlag(position, flag));
    announce(`${flag}: ${work.notes.of(position).flags.includes(flag) ? "yes" : "no"}.`);
  },
  rate: (position, aspect, points) => changeNotes(position, (notes) => notes.rate(position, aspect, points)),
  write: (position, field, text) => changeNotes(position, (notes) => { notes.of(position)[field] = text; }),
  writeAnswer: (text) => {
    if (!work?.isDemonstration || text === work.answer) return;
    work.answer = text;
    redraw();
    keepDraft();
  },
  openNotes,
  toggleNotes: (position) => {
    if (view.cardAt(position).querySelector(".notes").hidden) openNotes(position);
    else view.openNotes(position, false);
  },
  closeNotes: (position) => view.openNotes(position, false),
  writeBetter,
  dropBetter: (position) => {
    changeNotes(position, (notes) => { notes.of(position).better = ""; });
    view.cardAt(position).querySelector("[data-write-better]").focus();
  },
  openDifferences: () => (board && board.completions.length > 1 && !view.isBlurred() ? differences.open(work.cursor) : false),
  openGuideline: () => guideline.open(),
  unblur: () => { view.unblur(); announce("Shown."); },
  unfold: () => unfold(document.getElementById("board")),
  reviseLast: () => revise(lastSent),
  leaveRevision,
});

// --- keeping what was done ---

function keepDraft() {
  work.isChanged = true;
  clearTimeout(draftTimer);
  draftTimer = setTimeout(saveDraft, DRAFT_PAUSE_MS);
}

async function saveDraft() {
  clearTimeout(draftTimer);
  draftTimer = null;
  // Of a judgment that was sent there is no draft: what was sent stays until the revision is.
  if (!board || work.revises) return;
  const { assignment } = board;
  try {
    await api.draft(assignment, work.toDraft(clock.read()));
    if (board?.assignment !== assignment) return;
    view.noteKept("Your steps are kept.");
    notice("draft", "");
  } catch (error) {
    if (board?.assignment !== assignment) return;
    view.noteKept("");
    notice("draft", error instanceof Refusal ? error.message : "Your steps are kept on this page only: the server can't be reached.");
  }
}

function giveBackAhead() {
  ahead?.then((fetched) => fetched && api.release(fetched.assignment).catch(() => {}));
  ahead = null;
}

addEventListener("pagehide", () => {
  if (draftTimer !== null && !sending) saveDraft();
  giveBackAhead();
});
// The page comes back whole from the browser's memory: what was fetched ahead has been given back.
addEventListener("pageshow", (event) => { if (event.persisted) lease.renewNow(); });
// A revision has no draft on the server.
addEventListener("beforeunload", (event) => { if (outbox.waiting.length || (work?.revises && work.isChanged)) event.preventDefault(); });

// --- begin ---

async function begin() {
  // The page was left while a judgment was on its way: it goes first.
  for (const assignment of outbox.waiting) {
    view.showIdle({ title: "Sending your last judgment …" });
    try {
      await outbox.deliver(assignment);
      lastSent = assignment;
    } catch (error) {
      if (error.status === 403) return tellSignedOut(begin);
      notice("sent", error.message, { kind: "bad" });
    }
    notice("sending", "");
  }
  const wanted = new URLSearchParams(location.search).get("revise");
  if (wanted) {
    history.replaceState(null, "", location.pathname);
    await revise(wanted);
  }
  if (!board) await next();
  progress.fetch();
}

progress.draw();
await begin();
