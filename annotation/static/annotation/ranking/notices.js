// Notices above the board, and what is said to a screen reader.

const byId = (id) => document.getElementById(id);

export function announce(text) { byId("live").textContent = text; }

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
