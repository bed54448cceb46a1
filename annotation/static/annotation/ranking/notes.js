// What is said of each completion beside its rank: flags, aspects, a comment, a better answer. Pure: no page, no network.

export class Notes {
  // `texts` are those shown: a better answer that repeats one is none.
  constructor(texts, asked) {
    this.asked = asked;
    this.texts = texts;
    this.all = Array.from({ length: texts.length }, () => ({ flags: [], aspects: {}, comment: "", better: "" }));
  }

  of(position) { return this.all[position - 1]; }

  toggleFlag(position, flag) {
    const note = this.of(position);
    note.flags = note.flags.includes(flag) ? note.flags.filter((other) => other !== flag) : [...note.flags, flag];
  }

  // The same points again take the rating back.
  rate(position, aspect, points) {
    const { aspects } = this.of(position);
    if (aspects[aspect] === points) delete aspects[aspect];
    else aspects[aspect] = points;
  }

  isEmpty(position) {
    const { flags, aspects, comment } = this.of(position);
    return !flags.length && !Object.keys(aspects).length && !comment.trim() && !this.betterOf(position);
  }

  betterOf(position) {
    const { better } = this.of(position);
    return better.trim() === this.texts[position - 1].trim() ? "" : better.trim() && better;
  }

  // As the API takes them, without the empty ones.
  toSend() {
    return this.all.map((note, index) => ({ position: index + 1, ...note, better: this.betterOf(index + 1) }))
      .filter((note) => !this.isEmpty(note.position));
  }

  // In a few words, for the card and for ears.
  summary(position) {
    const { flags, aspects, comment } = this.of(position);
    return [
      ...flags,
      ...Object.entries(aspects).map(([name, points]) => `${name} ${points}`),
      ...(comment.trim() ? ["comment"] : []),
      ...(this.betterOf(position) ? ["better answer"] : []),
    ].join(", ");
  }

  // From a draft or from what was sent; what the project no longer asks for is dropped.
  restore(kept) {
    if (!Array.isArray(kept)) return false;
    for (const { position, flags, aspects, comment, better } of kept) {
      const note = this.of(position);
      if (!note) continue;
      note.flags = (Array.isArray(flags) ? flags : []).filter((flag) => this.asked.flags.includes(flag));
      note.aspects = Object.fromEntries(Object.entries(aspects || {}).filter(([name]) => this.asked.aspects.includes(name)));
      note.comment = String(comment || "");
      note.better = String(better || "");
    }
    return this.toSend().length > 0;
  }
}
