// The annotator's API. Answers are told apart by what can be done about them, not by their number alone.

import { csrfToken } from "../csrf.js";

// A request that outlives its page may carry no more than this (the fetch standard says 64 KiB for all of them).
const MOST_KEPT_ALIVE = 60_000; // bytes

// The server gave a definite no; its words say what to do. `status` is 400, 403, 404 or 409.
export class Refusal extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

// No answer, or one that may be different next time (no network, 5xx, 429). The same request may be sent again.
export class Unreachable extends Error {}

export class Api {
  constructor(claimAddress) {
    this.claimAddress = claimAddress;
    this.base = claimAddress.replace(/claim$/, "");
  }

  claim(body = {}) { return this.#send("POST", this.claimAddress, body); }
  board(assignment) { return this.#send("GET", `${this.base}assignments/${assignment}`); }
  submit(assignment, body) { return this.#send("POST", this.#address(assignment, "submit"), body); }
  revise(assignment, body) { return this.#send("POST", this.#address(assignment, "revise"), body); }
  report(assignment, category, text) { return this.#send("POST", this.#address(assignment, "report"), { category, text }); }
  skip(assignment, reason) { return this.#send("POST", this.#address(assignment, "skip"), { reason }); }
  renew(assignment) { return this.#send("POST", this.#address(assignment, "renew"), {}); }
  progress(since) { return this.#send("GET", `${this.base}progress?since=${encodeURIComponent(since.toISOString())}`); }
  guideline() { return this.#send("GET", `${this.base}guideline`); }
  guidelineRead(version) { return this.#send("POST", `${this.base}guideline/read`, { version }); }
  // These two may have to outlive the page.
  release(assignment) { return this.#send("POST", this.#address(assignment, "release"), {}, { keepalive: true }); }
  draft(assignment, draft) {
    const keepalive = JSON.stringify(draft).length < MOST_KEPT_ALIVE / 3; // a character is up to three bytes
    return this.#send("PUT", this.#address(assignment, "draft"), draft, { keepalive });
  }

  #address(assignment, what) { return `${this.base}assignments/${assignment}/${what}`; }

  async #send(method, address, body = undefined, options = {}) {
    let response;
    try {
      response = await fetch(address, {
        method,
        body: JSON.stringify(body),
        credentials: "same-origin",
        headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": csrfToken() },
        ...options,
      });
      if (response.status === 204) return null;
      if (response.ok) return await response.json();
    } catch (error) {
      throw new Unreachable(error.message);
    }
    if (response.status >= 500 || response.status === 429) throw new Unreachable(`status ${response.status}`);
    const said = await response.json().catch(() => ({}));
    throw new Refusal(response.status, said.detail || `The server answered ${response.status}. Reload the page.`);
  }
}
