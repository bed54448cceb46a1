// The guideline, one key away: fetched when it is opened, with what changed since this annotator read it last.

import { setCleanedHtml } from "./cards.js";
import { notice } from "./notices.js";

const byId = (id) => document.getElementById(id);

export class Guideline {
  constructor(api, { newest, read }) {
    this.api = api;
    this.newest = newest;
    this.read = read;
    this.#mark();
  }

  // The newest version as a board tells it: it may have changed while this page was open.
  heard(version) {
    if (!version || version <= this.newest) return;
    this.newest = version;
    this.#mark();
    notice("guideline", "The guideline has changed.", { kind: "", action: { text: "Read what changed (g)", run: () => this.open() } });
  }

  async open() {
    const dialog = byId("guideline-dialog");
    if (!dialog || document.querySelector("dialog[open]")) return;
    dialog.showModal();
    try {
      const guideline = await this.api.guideline();
      byId("guideline-version").textContent = `version ${guideline.version}`;
      setCleanedHtml(byId("guideline-text"), guideline.html);
      byId("guideline-changes").hidden = !guideline.changes_html;
      byId("guideline-since").textContent = `Changed since version ${guideline.read}, which you read last`;
      setCleanedHtml(byId("guideline-changes-text"), guideline.changes_html || "");
      await this.api.guidelineRead(guideline.version);
      this.newest = this.read = guideline.version;
      this.#mark();
      notice("guideline", "");
    } catch (error) {
      byId("guideline-version").textContent = "";
      byId("guideline-text").textContent = `The guideline can't be fetched just now. ${error.message}`;
    }
  }

  #mark() {
    const badge = byId("guideline-new");
    if (!badge) return;
    badge.hidden = this.newest <= this.read;
    badge.textContent = this.read ? "changed" : "not read yet";
  }
}
