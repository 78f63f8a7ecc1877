// The rows of a run by step, and what the charts draw of them.

import { smooth } from "./chart.js";
import { bytes, number } from "./dom.js";

/** Rows by step. A resumed run says some steps again, and a validation comes after its step. */
export class Rows {
  constructor(rows = []) {
    this.byStep = new Map();
    this.add(rows);
  }

  add(rows) {
    for (const row of rows) {
      if (typeof row.step === "number") this.byStep.set(row.step, { ...this.byStep.get(row.step), ...row });
    }
    this.sorted = null;
  }

  get list() {
    return (this.sorted ??= [...this.byStep.values()].sort((a, b) => a.step - b.step));
  }

  points(name, other) {
    return this.list.filter((row) => typeof (row[name] ?? row[other]) === "number").map((row) => [row.step, row[name] ?? row[other]]);
  }

  /** Median seconds of a step of late; null before the third. */
  get pace() {
    const late = this.points("seconds").slice(-25).map(([, y]) => y).sort((a, b) => a - b);
    return late.length < 3 ? null : late[Math.floor(late.length / 2)];
  }

  get best() {
    return this.points("valid_loss").reduce((best, point) => (!best || point[1] < best[1] ? point : best), null);
  }
}

/** Curves of loss; `tag` sets a run apart from another, and `look` its colour. */
export function lossCurves(rows, tag = "", look = "") {
  const training = rows.points("loss"), validation = rows.points("valid_loss");
  const name = (text) => (tag ? `${tag} ${text}` : text);
  const curves = [{ name: name("validation"), look: `valid ${look}`, points: validation, dots: validation.length < 60 }];
  if (training.length < 30) return [{ name: name("training"), look: `train ${look}`, points: training }, ...curves];
  if (!tag) curves.unshift({ name: "each step", look: "raw", points: training });
  return [{ name: name("training"), look: `train ${look}`, points: smooth(training) }, ...curves];
}

export const memoryCurve = (rows) => [{ name: "peak of a step", look: "train", points: rows.points("step_bytes", "peak_bytes") }];

export const asLoss = (value, tick) => (tick ? `${value}` : number(value));
export const asMemory = (value, tick) => (tick ? bytes(value).replace(".0 ", " ").replace(" bytes", "") : bytes(value));
