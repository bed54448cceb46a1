// Live curves of one run, until it is over.

import { Curves, follow } from "./curves.js";

const HELD_OUT = "held_out/";
const TRAIN = { label: "train", run: 0, stroke: "--accent" };
const MEASURED = { label: "held-out", run: 0, stroke: "--sim", sparse: true };

// A held-out figure comes with its interval, and with what the same figure was in training.
function linesOf(metric, values) {
  if (!metric.startsWith(HELD_OUT)) return [{ ...TRAIN, metric }];
  const twin = metric.slice(HELD_OUT.length);
  const bound = { ...MEASURED, isBound: true, width: 0 };
  return [ // the band first: what is drawn later lies above it
    { ...bound, label: "low", metric: `${metric}_low` },
    { ...bound, label: "high", metric: `${metric}_high` },
    ...(values.has(twin) ? [{ ...TRAIN, metric: twin, width: 1 }] : []),
    { ...MEASURED, metric },
  ];
}

const box = document.getElementById("curves");
const curves = new Curves(box, linesOf);
follow(box.dataset.address, (rows) => curves.add(0, rows));
