// Who has which place. Pure: no page, no network. A place is a number from 1 (best); equal places are a tie.
// Places may have gaps while cards are still missing; once every card has one they close up, and that is what is sent.

export class Order {
  constructor(count) {
    this.count = count;
    this.places = new Array(count).fill(null); // places[position - 1]
    this.lastPlaced = null;
    this.strength = null; // of a pair: how much better the preferred one is, from 1
    this.history = [];
  }

  get placedCount() { return this.places.filter((place) => place !== null).length; }
  get isComplete() { return this.placedCount === this.count; }
  get canUndo() { return this.history.length > 0; }
  placeOf(position) { return this.places[position - 1]; }
  tiedWith(position) {
    const place = this.placeOf(position);
    return place === null ? [] : this.positions((p) => p !== position && this.placeOf(p) === place);
  }

  positions(filter = () => true) {
    return Array.from({ length: this.count }, (_, index) => index + 1).filter(filter);
  }

  // Positions in groups, best group first: [[3], [1, 4], [2]].
  tiers() {
    const used = [...new Set(this.places.filter((place) => place !== null))].sort((a, b) => a - b);
    return used.map((place) => this.positions((p) => this.placeOf(p) === place));
  }

  // Ranks as the API takes them: dense from 1. Only for a complete order.
  ranks() {
    const used = [...new Set(this.places)].sort((a, b) => a - b);
    return this.places.map((place) => used.indexOf(place) + 1);
  }

  undo() {
    const before = this.history.pop();
    if (before) ({ places: this.places, lastPlaced: this.lastPlaced, strength: this.strength } = before);
    return Boolean(before);
  }

  // A card's place, chosen by number; the same number again takes the card back.
  setPlace(position, place) {
    this.#change(() => {
      const again = this.placeOf(position) === place;
      this.places[position - 1] = again ? null : place;
      if (!again) this.lastPlaced = position;
    });
  }

  // The place of the card placed before. False when there is none to tie with.
  tieWithLast(position) {
    const last = this.lastPlaced;
    if (last === null || last === position || this.placeOf(last) === null) return false;
    this.#change(() => {
      this.places[position - 1] = this.placeOf(last);
      this.lastPlaced = position;
    });
    return true;
  }

  // Join the place above, or leave a tie for a place of one's own below it.
  toggleTie(position) {
    const place = this.placeOf(position);
    if (place === null) return this.tieWithLast(position);
    if (this.tiedWith(position).length) return this.#leaveTie(position, 1);
    const above = Math.max(...this.places.filter((other) => other !== null && other < place));
    return above > 0 && this.#change(() => { this.places[position - 1] = above; });
  }

  // One place up (-1) or down (1), past whoever is there; a tied card first leaves its tie on that side.
  move(position, by) {
    const place = this.placeOf(position);
    if (place === null) return false;
    if (this.tiedWith(position).length) return this.#leaveTie(position, by);
    const target = place + by;
    const last = this.isComplete ? this.tiers().length : this.count;
    if (target < 1 || target > last) return false;
    return this.#change(() => {
      this.places = this.places.map((other) => (other === target ? place : other));
      this.places[position - 1] = target;
    });
  }

  // After a drag: `sequence` is the ranked list as it now stands. Dropped between two that tie, it joins their tie.
  drag(position, sequence) {
    this.#change(() => {
      const at = sequence.indexOf(position);
      if (at < 0) { this.places[position - 1] = null; return; }
      this.places[position - 1] = null;
      const tiers = this.tiers();
      const [before, after] = [sequence[at - 1], sequence[at + 1]];
      const tierOf = (other) => tiers.findIndex((tier) => tier.includes(other));
      if (before && after && tierOf(before) === tierOf(after)) tiers[tierOf(before)].push(position);
      else tiers.splice(before ? tierOf(before) + 1 : 0, 0, [position]);
      this.#take(tiers);
      this.lastPlaced = position;
    });
  }

  // A step on a pair's scale: -3 is "A is significantly better", 0 "about the same", 3 "B is significantly better".
  choosePair(step) {
    return this.#change(() => {
      this.places = step < 0 ? [1, 2] : step > 0 ? [2, 1] : [1, 1];
      this.strength = Math.abs(step) || null;
    });
  }

  // The step chosen, null before any.
  get pairStep() {
    if (!this.isComplete) return null;
    return (this.strength || 1) * Math.sign(this.places[0] - this.places[1]);
  }

  restore(places, strength = null, levels = 1) {
    const fits = Array.isArray(places) && places.length === this.count
      && places.every((place) => place === null || (Number.isInteger(place) && place >= 1 && place <= this.count));
    if (fits) this.places = [...places];
    // The scale may have become shorter since.
    if (fits && Number.isInteger(strength) && strength >= 1) this.strength = Math.min(strength, levels);
    return fits && this.placedCount > 0;
  }

  #leaveTie(position, by) {
    const tiers = this.tiers();
    const index = tiers.findIndex((tier) => tier.includes(position));
    tiers[index] = tiers[index].filter((other) => other !== position);
    tiers.splice(by < 0 ? index : index + 1, 0, [position]);
    return this.#change(() => this.#take(tiers));
  }

  #take(tiers) {
    tiers.forEach((tier, index) => tier.forEach((position) => { this.places[position - 1] = index + 1; }));
  }

  #change(change) {
    const before = { places: [...this.places], lastPlaced: this.lastPlaced, strength: this.strength };
    change();
    if (this.isComplete) this.places = this.ranks();
    // A step that changes nothing is none to be undone.
    const changed = this.places.join() !== before.places.join() || this.strength !== before.strength;
    if (changed) this.history.push(before);
    return true;
  }
}
