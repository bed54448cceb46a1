// The curves of several runs, one line a run in one chart a metric.

import { Curves, follow } from "./curves.js";

const DASHES = [[], [9, 4], [2, 3], [11, 4, 2, 4], [5, 2], [16, 5]]; // so that colours are not all that tells them apart

const box = document.getElementById("curves");
const runs = JSON.parse(box.dataset.runs);

const linesOf = (metric) => runs.map(({ name }, run) => ({
  label: name, run, metric, stroke: `--run-${run + 1}`, dash: DASHES[run], sparse: metric.startsWith("held_out/"),
}));

const curves = new Curves(box, linesOf);
const awaited = new Set(runs.keys());
runs.forEach(({ address }, run) => follow(address, (rows, more) => {
  curves.add(run, rows);
  if (!more) awaited.delete(run);
  if (!awaited.size) box.removeAttribute("aria-busy");
}));
