// Live curves of one run. New measurements are asked for every two seconds until the run is over.

const LOOK_MS = 2000;
const FIRST = ["loss", "accuracy", "margin"]; // then whatever else was measured
const LEFT_OUT = /^held_out\/(pairs|accuracy_low|accuracy_high|score_)/;

const WHOLE_STEPS = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1000, 10_000, 100_000].map((power) => digit * power)).sort((a, b) => a - b);

const box = document.getElementById("curves");
const values = new Map(); // metric name -> Map(step -> value); a later row of a step replaces the earlier
const charts = new Map(); // chart name -> uPlot
let after = 0;

// "held_out/accuracy" belongs into the chart of "accuracy".
const chartOf = (name) => name.replace(/^held_out\//, "");
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function look() {
  let over = false;
  try {
    const response = await fetch(`${box.dataset.address}?after=${after}`, { headers: { Accept: "application/json" } });
    if (response.ok) {
      const answer = await response.json();
      ({ last: after, over } = answer);
      for (const [name, step, value] of answer.rows) {
        if (LEFT_OUT.test(name)) continue;
        if (!values.has(name)) values.set(name, new Map());
        values.get(name).set(step, value);
      }
      if (answer.rows.length) draw();
    }
  } catch {
    // No network: the curves stay as they are, and the next look may do better.
  }
  if (!over) setTimeout(look, LOOK_MS);
}

function draw() {
  document.getElementById("no-curves")?.remove();
  const names = [...new Set([...values.keys()].map(chartOf))];
  names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  for (const name of names) drawChart(name);
}

const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

function drawChart(name) {
  const series = [name, `held_out/${name}`].filter((each) => values.has(each));
  const steps = [...new Set(series.flatMap((each) => [...values.get(each).keys()]))].sort((a, b) => a - b);
  const data = [steps, ...series.map((each) => steps.map((step) => values.get(each).get(step) ?? null))];
  const drawn = charts.get(name);
  if (drawn && drawn.series.length === data.length) { drawn.setData(data); return; }
  drawn?.destroy();
  const place = document.getElementById(`curve-${name}`) ?? addPlace(name);
  charts.set(name, new uPlot(optionsOf(name, series, place.clientWidth), data, place));
}

function addPlace(name) {
  const place = document.createElement("section");
  place.className = "curve";
  place.id = `curve-${name}`;
  const title = document.createElement("h3");
  title.textContent = name.replaceAll("_", " ");
  place.append(title);
  box.append(place);
  return place;
}

function optionsOf(name, series, width) {
  const axis = { stroke: token("--ink-soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 } };
  const label = (each) => (each.startsWith("held_out/") ? "held-out" : "train");
  return {
    width,
    height: 200,
    scales: { x: { time: false } },
    axes: [{ ...axis, incrs: WHOLE_STEPS }, { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => Number(tick.toPrecision(4)).toString()) }],
    cursor: { drag: { x: false, y: false } },
    series: [
      { label: "step" },
      ...series.map((each) => ({
        label: label(each),
        stroke: token(each.startsWith("held_out/") ? "--sim" : "--accent"),
        width: 2,
        spanGaps: true,
        points: { show: each.startsWith("held_out/"), size: 7 },
        value: (_, value) => (value === null ? "–" : Number(value.toPrecision(4)).toString()),
      })),
    ],
  };
}

addEventListener("resize", () => {
  for (const [name, chart] of charts) chart.setSize({ width: document.getElementById(`curve-${name}`).clientWidth, height: 200 });
});
// Colours are drawn into the canvas, so they follow the system's wish only when drawn anew.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts.values()) chart.destroy();
  charts.clear();
  draw();
});

look();
