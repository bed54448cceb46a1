// The ranking page: claim, rank, send, next. Everything that is sent may be sent again without harm.
//
// One comparison is on the board (`current`), the next is fetched ahead (`ahead`, a promise). What the annotator does
// lives in `order`, goes to the server as a draft, and is only ever dropped after a definite answer.

import { Api, Refusal } from "./ranking/api.js";
import { Clock } from "./ranking/clock.js";
import { Lease } from "./ranking/lease.js";
import { bindControls } from "./ranking/controls.js";
import { Order } from "./ranking/order.js";
import { Outbox } from "./ranking/outbox.js";
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
  onWaiting: (pause) => view.notice("sending", `The server can't be reached. Your ranking is kept here and is sent again in ${Math.round(pause / 1000)} s.`, {
    action: { text: "Send now", run: () => outbox.hurry() },
  }),
});
const progress = { today: Number(page.dataset.doneToday), left: Number(page.dataset.left) };

let current = null;
let order = null;
let tying = false;
let sending = false;
let ahead = null;
let draftTimer = null;
let pollTimer = null;

// --- from the server ---

async function next() {
  clearTimeout(pollTimer);
  clearTimeout(draftTimer);
  const fetched = ahead;
  ahead = null;
  let board = fetched && await fetched;
  try {
    if (!board || lease.isNearlyOver(board)) board = await claim();
  } catch (error) {
    return claimFailed(error);
  }
  if (!board) return nothingLeft();
  show(board);
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

function show(board) {
  current = board;
  order = new Order(board.completions.length);
  const draft = board.draft || {};
  clock.restart(Number(draft.active_seconds) || 0);
  const restored = order.restore(draft.places);
  tying = false;
  lease.hold(board);
  view.drawBoard(board);
  view.showBoard(true);
  view.lock(false);
  redraw();
  view.drawProgress(progress);
  view.noteKept(restored ? "Restored from where you left it." : "");
  view.announce(`New comparison with ${board.completions.length} completions.${restored ? " Your earlier steps are restored." : ""}`);
  scrollTo({ top: 0 });
  document.getElementById("board-title").focus({ preventScroll: true });
  // Errors of fetching ahead are nobody's business: the claim that follows tells them.
  ahead = api.claim({ prefetch: true, holding: board.assignment }).catch(() => null);
  ahead.then((fetched) => { if (current === board) lease.holdAhead(fetched); });
}

function nothingLeft() {
  current = null;
  lease.hold(null);
  progress.left = 0;
  view.drawProgress(progress);
  const seconds = Number(page.dataset.pollSeconds);
  view.showIdle({
    title: progress.today ? "All done for now" : "Nothing to rank right now",
    text: `Either everything is ranked, or others are working on what is left. New work shows up here by itself: this page looks every ${seconds} seconds.`,
    again: next,
  });
  view.announce("Nothing left to rank right now.");
  poll(seconds * 1000);
}

function claimFailed(error) {
  const refused = error instanceof Refusal;
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
  view.notice("session", "You are signed out. Your work is kept.", {
    kind: "bad",
    link: { href: page.dataset.signIn, text: "Sign in in another tab" },
    action: { text: "I am back: try again", run: () => { view.notice("session", ""); again(); } },
  });
}

// --- sending ---

async function send(outcome, reason = "") {
  if (!current || sending || (outcome === "ranked" && !order.isComplete)) return;
  const body = { outcome, reason, active_seconds: clock.read() };
  if (outcome === "ranked") body.ranks = order.ranks();
  await deliver(current.assignment, body);
}

async function deliver(assignment, body) {
  sending = true;
  clearTimeout(draftTimer);
  view.lock(true);
  view.noteKept("Sending …");
  try {
    const answer = await outbox.deliver(assignment, body);
    progress.today += 1;
    progress.left = Math.max(0, progress.left - 1);
    view.notice("sent", answer.counted ? "" : "Kept, but not counted: your reservation had run out and somebody else had taken the place.");
    await next();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    await refused(error, () => deliver(assignment, body));
  } finally {
    sending = false;
    view.notice("sending", "");
    if (!document.getElementById("notice-session")) view.lock(false);
  }
}

async function refused(error, again) {
  view.noteKept("");
  if (error.status === 403) return tellSignedOut(again);
  view.notice("sent", error.message, { kind: "bad" });
  // 400: to be mended here. Otherwise this comparison is over for us (judged already, or not ours): go on.
  if (error.status !== 400) await next();
}

async function skip(reason) {
  if (!current || sending) return;
  sending = true;
  view.lock(true);
  try {
    await api.skip(current.assignment, reason);
    progress.left = Math.max(0, progress.left - 1);
    view.notice("sent", "");
    await next();
  } catch (error) {
    if (error instanceof Refusal) await refused(error, () => skip(reason));
    else view.notice("sent", "The server can't be reached, so nothing was skipped. Try again in a moment.");
  } finally {
    sending = false;
    view.lock(false);
  }
}

// --- ranking ---

function redraw() { view.drawOrder(order, { tying }); }

// Runs one step on the order; says what came of it, and keeps it.
function step(change, position = null) {
  if (!current || sending) return;
  const before = order.places.join();
  tying = false;
  change(order);
  redraw();
  if (order.places.join() === before) return;
  view.announce(position ? spokenFor(position) : view.describe(order) || "Nothing is placed.");
  keepDraft();
}

const spokenFor = (position) => (order.count === 2 ? view.describe(order) || "Not chosen yet." : view.spoken(order, position));

function pressDigit(digit, { tied }) {
  if (!current || sending || digit > order.count) return;
  if (order.count === 2) return step(() => order.choosePair(String(digit)), digit);
  if (tied || tying) return step(() => order.tieWithLast(digit) || order.placeNext(digit), digit);
  step(() => order.placeNext(digit), digit);
}

function pressTie() {
  if (!current || sending) return;
  if (order.count === 2) return step(() => order.choosePair("tie"), 1);
  const possible = !order.isComplete && order.lastPlaced !== null && order.placeOf(order.lastPlaced) !== null;
  tying = possible && !tying;
  redraw();
  view.announce(tying ? `The next number ties with ${order.lastPlaced}.` : possible ? "No tie." : "Place one first, then =, then the one that ties with it.");
}

bindControls({
  canWork: () => Boolean(current) && !sending,
  pressDigit,
  pressTie,
  undo: () => step(() => order.undo()),
  send: () => send("ranked"),
  sendOutcome: send,
  skip,
  setPlace: (position, place) => step(() => order.setPlace(position, place), position),
  toggleTie: (position) => step(() => order.toggleTie(position), position),
  move: (position, by) => step(() => order.move(position, by), position),
  choosePair: (choice) => step(() => order.choosePair(choice), 1),
  drag: (position, sequence) => { step(() => order.drag(position, sequence), position); redraw(); },
});

// --- keeping what was done ---

function keepDraft() {
  clearTimeout(draftTimer);
  draftTimer = setTimeout(saveDraft, DRAFT_PAUSE_MS);
}

async function saveDraft() {
  draftTimer = null;
  const { assignment } = current;
  try {
    await api.draft(assignment, { places: order.places, active_seconds: clock.read() });
    if (current?.assignment === assignment) view.noteKept("Your steps are kept.");
  } catch {
    if (current?.assignment === assignment) view.noteKept("Your steps are kept on this page only: the server can't be reached.");
  }
}

addEventListener("pagehide", () => {
  if (draftTimer !== null && current && !sending) { clearTimeout(draftTimer); saveDraft(); }
  ahead?.then((board) => board && api.release(board.assignment).catch(() => {}));
  ahead = null;
});
// The page comes back whole from the browser's memory: what was fetched ahead has been given back.
addEventListener("pageshow", (event) => { if (event.persisted) lease.renewNow(); });
addEventListener("beforeunload", (event) => { if (outbox.waiting.length) event.preventDefault(); });

// --- begin ---

async function begin() {
  // The page was left while a judgment was on its way: it goes first.
  for (const assignment of outbox.waiting) {
    view.showIdle({ title: "Sending your last ranking …" });
    try {
      await outbox.deliver(assignment);
      progress.today += 1;
    } catch (error) {
      if (error.status === 403) return tellSignedOut(begin);
      view.notice("sent", error.message, { kind: "bad" });
    }
    view.notice("sending", "");
  }
  await next();
}

view.drawProgress(progress);
await begin();
