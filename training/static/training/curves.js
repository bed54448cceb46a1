// Charts of measurements, in groups: one per metric, drawn by uPlot (a global), redrawn as measurements come in.

const HELD_OUT = "held_out/";
const KEPT_WHEN_SMOOTHED = 0.8; // weight of what came before, as TensorBoard's slider calls it
const WHOLE_STEPS = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1000, 10_000, 100_000].map((power) => digit * power)).sort((a, b) => a - b);

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());

export class Curves {
  #box; #groupsKnown; #noCurve; #linesOf; #smooth = false;
  #charts = new Map(); // metric -> {place, plot, key}
  #groups = new Map(); // group's title -> its element
  #values = new Map(); // metric -> [per run: Map(step -> value)]

  // `linesOf(metric, values)` says which lines a metric's chart has: [{label, run, metric, stroke, dash, width, sparse}]
  constructor(box, linesOf) {
    this.#box = box;
    this.#linesOf = linesOf;
    const { groups, no_curve } = JSON.parse(box.dataset.catalogue);
    [this.#groupsKnown, this.#noCurve] = [groups, new Set(no_curve)];
    addEventListener("resize", () => {
      for (const { plot, place } of this.#charts.values()) plot.setSize({ width: place.clientWidth, height: 200 });
    });
    // Colours are drawn into the canvas, so they follow the system's wish only when drawn anew.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
    const smooth = document.getElementById("smooth");
    smooth?.addEventListener("change", () => { this.#smooth = smooth.checked; this.#redraw(); });
    this.#smooth = smooth?.checked ?? false; // a browser may have kept it over a reload
  }

  // Rows are [metric, step, value]; of a step that comes twice, as in a resumed run, the later holds.
  add(run, rows) {
    for (const [metric, step, value] of rows) {
      if (!this.#values.has(metric)) this.#values.set(metric, new Map());
      const runs = this.#values.get(metric);
      if (!runs.has(run)) runs.set(run, new Map());
      runs.get(run).set(step, value);
    }
    if (rows.length) this.draw();
  }

  draw() {
    document.getElementById("no-curves")?.remove();
    for (const metric of this.#inOrder()) this.#drawChart(metric);
  }

  #redraw() {
    for (const { plot } of this.#charts.values()) plot.destroy();
    for (const chart of this.#charts.values()) chart.key = "";
    if (this.#values.size) this.draw();
  }

  // Those that have a chart of their own: bounds of an interval belong to what lies between them.
  #inOrder() {
    const metrics = [...this.#values.keys()].filter((metric) => !this.#noCurve.has(metric) && !this.#isBound(metric));
    const places = new Map(metrics.map((metric) => [metric, this.#placeOf(metric)]));
    return metrics.sort((a, b) => places.get(a)[0] - places.get(b)[0] || places.get(a)[1] - places.get(b)[1] || a.localeCompare(b));
  }

  #isBound(metric) {
    const between = metric.replace(/_(low|high)$/, "");
    return between !== metric && this.#values.has(between);
  }

  // [number of the group, place in it]
  #placeOf(metric) {
    const last = this.#groupsKnown.length - 1;
    for (const [number, group] of this.#groupsKnown.entries()) {
      const place = Object.keys(group.names).indexOf(metric);
      if (place >= 0) return [number, place];
    }
    const prefixed = this.#groupsKnown.findIndex((group) => group.prefix && metric.startsWith(group.prefix));
    return [prefixed >= 0 ? prefixed : last, Infinity];
  }

  #titleOf(metric) {
    const named = this.#groupsKnown.find((group) => Object.hasOwn(group.names, metric));
    return named ? named.names[metric] : metric.replace(HELD_OUT, "").replaceAll("_", " ");
  }

  #groupOf(metric) {
    const [number] = this.#placeOf(metric);
    const { title } = this.#groupsKnown[number];
    if (!this.#groups.has(title)) {
      const group = document.createElement("section");
      const heading = document.createElement("h3");
      heading.textContent = title;
      const charts = document.createElement("div");
      charts.className = "curves";
      group.className = "curve-group";
      group.dataset.number = number;
      group.append(heading, charts);
      const later = [...this.#box.children].find((other) => Number(other.dataset.number) > number);
      this.#box.insertBefore(group, later ?? null);
      this.#groups.set(title, charts);
    }
    return this.#groups.get(title);
  }

  #drawChart(metric) {
    const lines = this.#linesOf(metric, this.#values).filter((line) => this.#pointsOf(line)?.size);
    if (!lines.length) return;
    const steps = [...new Set(lines.flatMap((line) => [...this.#pointsOf(line).keys()]))].sort((a, b) => a - b);
    const data = [steps, ...lines.map((line) => this.#column(line, steps))];
    const key = lines.map((line) => line.label + line.metric).join("|");
    const chart = this.#charts.get(metric);
    if (chart?.key === key) { chart.plot.setData(data); return; }
    if (chart?.key) chart.plot.destroy();
    const place = chart?.place ?? this.#addPlace(metric);
    const plot = new uPlot(optionsOf(lines, place.clientWidth), data, place);
    this.#charts.set(metric, { place, plot, key });
  }

  #addPlace(metric) {
    const place = document.createElement("section");
    place.className = "curve";
    place.id = `curve-${metric.replaceAll("/", "-")}`;
    const title = document.createElement("h4");
    title.textContent = this.#titleOf(metric);
    place.append(title);
    this.#groupOf(metric).append(place);
    return place;
  }

  #pointsOf({ metric, run }) { return this.#values.get(metric)?.get(run); }

  #column(line, steps) {
    const points = this.#pointsOf(line);
    const raw = steps.map((step) => points.get(step) ?? null);
    return this.#smooth && !line.sparse ? smoothed(raw) : raw;
  }
}

// An exponential mean of what came before, without the pull towards 0 of its start.
export function smoothed(values) {
  let mean = 0, weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = KEPT_WHEN_SMOOTHED * mean + (1 - KEPT_WHEN_SMOOTHED) * value;
    weight = KEPT_WHEN_SMOOTHED * weight + (1 - KEPT_WHEN_SMOOTHED);
    return mean / weight;
  });
}

function optionsOf(lines, width) {
  const axis = { stroke: token("--ink-soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 } };
  const places = new Map(lines.map((line, index) => [line.metric, index + 1]));
  const bounds = lines.filter((line) => line.isBound).map((line) => places.get(line.metric));
  return {
    width,
    height: 200,
    scales: { x: { time: false } },
    axes: [{ ...axis, incrs: WHOLE_STEPS }, { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => Number(tick.toPrecision(4)).toString()) }],
    cursor: { drag: { x: false, y: false } },
    bands: bounds.length === 2 ? [{ series: [Math.max(...bounds), Math.min(...bounds)], fill: token("--sim-wash") }] : [],
    series: [
      { label: "step" },
      ...lines.map((line) => ({
        label: line.label,
        stroke: token(line.stroke),
        dash: line.dash,
        width: line.width ?? 2,
        class: line.isBound ? "bound" : undefined, // an empty one is an error
        spanGaps: true,
        points: { show: Boolean(line.sparse) && !line.isBound, size: 7 },
        value: (_, value) => shown(value),
      })),
    ],
  };
}

// Asks for the measurements of one run until it is over, and hands on what is new, and whether more is there already.
export async function follow(address, take, milliseconds = 2000) {
  let after = 0, over = false;
  while (!over) {
    let rows = [], more = false;
    try {
      const response = await fetch(`${address}?after=${after}`, { headers: { Accept: "application/json" } });
      if (response.ok) ({ rows, last: after, more, over } = await response.json());
    } catch {
      // No network: the curves stay as they are, and the next look may do better.
    }
    take(rows, more);
    if (!over && !more) await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}
