// Drawing: the board, the ranked list, notices. Knows the page's elements and the order, not the server.

const byId = (id) => document.getElementById(id);
const ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th"];
const ROLE_NAMES = { system: "System prompt", user: "User", assistant: "Assistant" };

// The one place where HTML of the server comes in. The server has cleaned it by an allow-list.
function setCleanedHtml(element, html) { element.innerHTML = html; }

function fromTemplate(id) { return byId(id).content.firstElementChild.cloneNode(true); }

export function drawBoard(board) {
  byId("rehearsal").hidden = !board.round.rehearsal;
  byId("messages").replaceChildren(...board.prompt.messages.map(drawMessage));
  const count = board.completions.length;
  byId("board").classList.toggle("is-pair", count === 2);
  byId("board").dataset.assignment = board.assignment;
  byId("completions").replaceChildren(...board.completions.map((completion) => drawCard(completion, count)));
}

function drawMessage(message) {
  const element = fromTemplate("message-template");
  element.classList.add(`from-${message.role}`);
  element.querySelector(".role").textContent = ROLE_NAMES[message.role] || message.role;
  setCleanedHtml(element.querySelector(".prose"), message.html);
  return element;
}

function drawCard(completion, count) {
  const card = fromTemplate("card-template");
  const name = `Completion ${completion.position}`;
  card.dataset.position = completion.position;
  card.setAttribute("aria-label", name);
  card.querySelector(".card-number").textContent = completion.position;
  card.querySelector("h3").textContent = name;
  setCleanedHtml(card.querySelector(".prose"), completion.html);
  const ranks = card.querySelector(".rank-buttons");
  ranks.setAttribute("aria-label", `Place of completion ${completion.position}`);
  for (let place = 1; place <= count; place += 1) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.dataset.place = place;
    button.textContent = ORDINALS[place - 1];
    ranks.append(button);
  }
  card.querySelector(".move-buttons").setAttribute("aria-label", `Move completion ${completion.position}`);
  for (const button of card.querySelectorAll("[data-move]")) {
    button.setAttribute("aria-label", `${button.title}: completion ${completion.position}`);
  }
  const choose = card.querySelector("[data-choose]");
  choose.dataset.choose = completion.position;
  choose.querySelector("span").textContent = `${completion.position} is better`;
  choose.querySelector("kbd").textContent = completion.position;
  return card;
}

export function drawOrder(order, { tying }) {
  const snippet = (position) => byId("completions").children[position - 1].querySelector(".prose").textContent.trim().replace(/\s+/g, " ").slice(0, 90);
  const entry = (position, place, tiedAbove) => {
    const element = fromTemplate("entry-template");
    element.dataset.position = position;
    element.classList.toggle("tied", tiedAbove);
    element.querySelector(".entry-place").textContent = tiedAbove ? "=" : place ? ORDINALS[place - 1] : "";
    element.querySelector(".card-number").textContent = position;
    element.querySelector(".entry-text").textContent = snippet(position) || "(empty)";
    element.setAttribute("aria-label", `${place ? ORDINALS[place - 1] : "not placed"}${tiedAbove ? ", tied" : ""}: completion ${position}`);
    return element;
  };
  const ranked = order.tiers().flatMap((tier) => tier.map((p, index) => entry(p, order.placeOf(p), index > 0)));
  const missing = order.positions((p) => order.placeOf(p) === null);
  byId("order").replaceChildren(...ranked);
  byId("unplaced").replaceChildren(...missing.map((p) => entry(p, null, false)));
  byId("unplaced-title").hidden = missing.length === 0;

  for (const card of byId("completions").children) {
    const position = Number(card.dataset.position);
    const place = order.placeOf(position);
    const tied = order.tiedWith(position).length > 0;
    card.classList.toggle("placed", place !== null);
    card.classList.toggle("best", place === 1);
    card.querySelector(".place").textContent = place === null ? "" : `${tied ? "tied " : ""}${ORDINALS[place - 1]}`;
    for (const button of card.querySelectorAll("[data-place]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.place) === place));
    }
    card.querySelector("[data-move=tie]").setAttribute("aria-pressed", String(tied));
    for (const move of ["up", "down"]) card.querySelector(`[data-move=${move}]`).disabled = place === null;
    card.querySelector("[data-choose]").setAttribute("aria-pressed", String(place === 1 && !tied));
  }
  byId("tie").setAttribute("aria-pressed", String(order.count === 2 && order.places.join() === "1,1"));

  byId("undo").disabled = !order.canUndo;
  byId("send").disabled = !order.isComplete;
  byId("state").textContent = stateText(order, tying);
}

function stateText(order, tying) {
  if (tying) return `= The next number ties with ${order.lastPlaced}.`;
  const left = order.count - order.placedCount;
  if (order.count === 2) return order.isComplete ? describe(order) : "Choose one, or a tie.";
  if (left === order.count) return `Place all ${order.count} to send.`;
  return left ? `${left} more to place.` : describe(order);
}

// "3 > 1 = 4 > 2"
export function describe(order) { return order.tiers().map((tier) => tier.join(" = ")).join(" > "); }

// The same for ears.
export function spoken(order, position) {
  const place = order.placeOf(position);
  const left = order.count - order.placedCount;
  const tied = order.tiedWith(position);
  const where = place === null ? "is not placed any more" : `is ${ORDINALS[place - 1]}${tied.length ? `, tied with ${tied.join(" and ")}` : ""}`;
  return `Completion ${position} ${where}. ${left ? `${left} left to place.` : "All are placed; Enter sends."}`;
}

export function announce(text) { byId("live").textContent = text; }

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

export function drawProgress({ today, left }) {
  const rest = left > 0 ? ` · about ${left} left` : "";
  byId("progress").textContent = `${today} done in the last 24 hours${rest}`;
}

export function lock(locked) {
  byId("board").inert = locked;
  byId("board").setAttribute("aria-busy", String(locked));
}

export function noteKept(text) { byId("kept").textContent = text; }

// One notice a topic; the same topic again replaces it, an empty text takes it away.
export function notice(topic, text, { kind = "warn", action = null, link = null } = {}) {
  const id = `notice-${topic}`;
  byId(id)?.remove();
  if (!text) return;
  const element = document.createElement("div");
  element.id = id;
  element.className = `banner ${kind}`;
  const words = document.createElement("p");
  words.textContent = text;
  element.append(words);
  if (link) {
    const anchor = Object.assign(document.createElement("a"), { href: link.href, textContent: link.text, target: "_blank" });
    words.append(" ", anchor);
  }
  if (action) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: action.text });
    button.addEventListener("click", action.run);
    element.append(button);
  }
  byId("notices").append(element);
}
