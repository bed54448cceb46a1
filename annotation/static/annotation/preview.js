// A preview beside a text: every textarea[data-preview] is shown in the element whose id stands there. That element
// says in data-preview-address where the server renders: the same cleaning as for every reader.

import { csrfToken } from "./csrf.js";

const PAUSE = 300; // ms after the last keystroke

export function bindPreview(field) {
  const place = document.getElementById(field.dataset.preview);
  let waiting = null;
  let running = null;

  field.addEventListener("input", follow);
  if (field.value !== field.defaultValue) follow(); // typed before this was loaded, or brought back by the browser

  function follow() {
    clearTimeout(waiting);
    waiting = setTimeout(show, PAUSE);
  }

  async function show() {
    running?.abort();
    const mine = running = new AbortController();
    try {
      const response = await fetch(place.dataset.previewAddress, {
        method: "POST",
        body: JSON.stringify({ text: field.value }),
        credentials: "same-origin",
        signal: mine.signal,
        headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": csrfToken() || field.form?.querySelector("[name=csrfmiddlewaretoken]")?.value || "" },
      });
      const answer = await response.json();
      if (response.ok) {
        place.innerHTML = answer.html || "<p>Nothing written yet.</p>";
      } else {
        tell(answer.fields?.text?.[0] ?? answer.detail);
      }
    } catch {
      if (mine.signal.aborted) return; // a newer text is on its way
      tell("The preview can't be made right now. Your text is not lost.");
    }
  }

  function tell(text) {
    const line = document.createElement("p");
    line.textContent = text;
    place.replaceChildren(line);
  }
}

document.querySelectorAll("textarea[data-preview]").forEach(bindPreview);
