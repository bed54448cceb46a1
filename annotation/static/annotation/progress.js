// Draws the days' table as bars. The table is the charts' text alternative and their only source.

import "./sortable_table.js";

const DAY = 86_400;
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

const days = [...(document.getElementById("days")?.tBodies[0].rows ?? [])].map((row) => {
  const [day, counted, surplus, seconds] = [...row.cells].map((cell) => cell.dataset.value);
  return { at: Date.parse(day) / 1000, counted: Number(counted), surplus: Number(surplus), hours: Number(seconds) / 3600 };
}).sort((a, b) => a.at - b.at);

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const bars = (label, colour, value) => ({
  label,
  stroke: token(colour),
  fill: token(colour),
  width: 0,
  points: { show: false },
  paths: uPlot.paths.bars({ size: [0.7, 28] }),
  value,
});

function judgmentsChart() {
  const counted = bars("counted", "--accent", (_, value) => value ?? "–");
  if (!days.some((day) => day.surplus)) return { series: [counted], values: [days.map((day) => day.counted)] };
  // The surplus stands on the counted ones: the whole bar lies beneath, and says what it has more.
  const surplus = bars("surplus", "--warn", (_, __, ___, index) => (index === null ? "–" : days[index].surplus));
  return { series: [surplus, counted], values: [days.map((day) => day.counted + day.surplus), days.map((day) => day.counted)] };
}

function hoursChart() {
  return { series: [bars("hours", "--good", (_, value) => (value === null ? "–" : value.toFixed(1)))], values: [days.map((day) => day.hours)] };
}

function optionsOf(series, width) {
  const axis = { stroke: token("--ink-soft"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 } };
  return {
    width,
    height: 200,
    scales: { x: { time: false, range: (_, from, to) => [from - DAY / 2, to + DAY / 2] }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
    axes: [
      { ...axis, grid: { show: false }, incrs: [DAY, 2 * DAY, 7 * DAY, 14 * DAY], space: 56, values: (_, ticks) => ticks.map((tick) => DATE.format(tick * 1000)) },
      { ...axis, size: 52 },
    ],
    cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
    series: [{ label: "day", value: (_, value) => (value === null ? "–" : DATE.format(value * 1000)) }, ...series],
  };
}

const places = { "chart-judgments": judgmentsChart, "chart-hours": hoursChart };
const charts = new Map(); // id of the place -> uPlot

function draw() {
  for (const [id, make] of Object.entries(places)) {
    const place = document.getElementById(id);
    if (!place || !days.length) continue;
    charts.get(id)?.destroy();
    const { series, values } = make();
    charts.set(id, new uPlot(optionsOf(series, place.clientWidth), [days.map((day) => day.at), ...values], place));
  }
}

addEventListener("resize", () => {
  for (const [id, chart] of charts) chart.setSize({ width: document.getElementById(id).clientWidth, height: 200 });
});
// Colours are drawn into the canvas, so they follow the system's wish only when drawn anew.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

draw();
