// Two runs beside each other: their curves, what was measured of each, and how they were made.

import { get } from "./api.js";
import { chart } from "./chart.js";
import { bytes, h, nameOf, number, put, ran, signed } from "./dom.js";
import { badge } from "./jobs.js";
import { Rows, asLoss, lossCurves } from "./metrics.js";

export function view(root, { a, b, live }) {
  live("");
  const found = h("div");
  const picks = [a, b].map((chosen, at) => h("select", { id: `run-${at}`, on: { change: go } }, h("option", { value: chosen || "" }, chosen || "choose a run")));
  function go() {
    const ids = picks.map((one) => one.value);
    location.hash = `#/compare/${ids.filter(Boolean).join("/")}`;
  }
  put(root, h("h1", {}, "Compare two runs"),
    h("div", { class: "row picks" }, picks.map((one, at) => h("div", { class: "field" }, h("label", { for: one.id, class: `key ${at ? "b" : "a"}` }, at ? "Run B" : "Run A"), one))), found);

  (async () => {
    const { jobs } = await get("/jobs?limit=100");
    picks.forEach((pick, at) => {
      const chosen = [a, b][at];
      const some = jobs.filter((job) => job.started || job.id === chosen);
      put(pick, h("option", { value: "" }, "choose a run"), some.map((job) => h("option", { value: job.id }, `${nameOf(job)} · ${job.id} · ${job.state}`)));
      if (chosen && !some.some((job) => job.id === chosen)) pick.append(h("option", { value: chosen }, chosen));
      pick.value = chosen || "";
    });
    if (!a || !b) {
      const trained = jobs.filter((job) => job.started).length;
      put(found, h("div", { class: "empty" }, trained < 2
        ? [h("p", {}, "It takes two jobs that have begun."), h("a", { class: "button main", href: "#/new" }, "Start a job")]
        : h("p", {}, "Choose two runs to see their curves over each other and what was measured of each.")));
      return;
    }
    const both = await Promise.all([a, b].map(async (id) => {
      const [job, metrics] = await Promise.all([get(`/jobs/${id}`), get(`/jobs/${id}/metrics`)]);
      return { job, rows: new Rows(metrics.rows) };
    }));
    if (root.isConnected) show(found, both);
  })().catch((error) => put(found, h("p", { class: "error", role: "alert" }, `${error.message} ${error.hint || ""}`)));
}

function show(root, both) {
  const loss = chart({ label: "Loss, nats a token", format: asLoss, height: 280, empty: "Neither run has trained a step." });
  loss.update(both.flatMap(({ rows }, at) => lossCurves(rows, "AB"[at], "ab"[at])));
  put(root, loss.node, section("In training", training(both)), section("Measured against the base", measured(both)), section("What differs", differing(both)));
}

const section = (title, content) => h("section", { class: "part" }, h("h2", {}, title), content);
const head = (names) => h("thead", {}, h("tr", {}, names.map((name, at) => h("th", { scope: "col", class: at > 0 && "n" }, name))));
const table = (label, names, rows) => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, h("table", {}, head(names), h("tbody", {}, rows)));
const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", { class: "n" }, cell ?? "–")));

function training(both) {
  const each = (of) => both.map(of);
  const best = each(({ rows }) => rows.best?.[1]);
  const value = (of, format = number) => [...each(of).map((one) => (one == null ? "–" : format(one))), ""];
  return table("In training", ["", "A", "B", "B − A"], [
    row("state", [...each(({ job }) => badge(job.state)), ""]),
    row("best validation loss", [...best.map((one) => number(one)), best.every((one) => one != null) ? signed(best[1] - best[0]) : "–"]),
    row("steps", value(({ rows }) => rows.list[rows.list.length - 1]?.step)),
    row("tokens", value(({ rows }) => rows.points("tokens").reduce((sum, [, y]) => sum + y, 0) || null)),
    row("seconds a step", value(({ rows }) => rows.pace)),
    row("most memory", value(({ rows }) => Math.max(0, ...rows.points("peak_bytes").map(([, y]) => y)) || null, bytes)),
    row("ran", value(({ job }) => ran(job), (text) => text || "–")),
  ]);
}

/** Each run's difference to its own base, with the interval that its record has. */
function measured(both) {
  const [one, other] = both.map(({ job }) => job.result?.metrics?.eval || {});
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  if (!names.length) return h("p", { class: "soft" }, "Neither run was judged. A job over a repository is judged when its training ends.");
  const rows = (some) => some.flatMap((suite) => {
    const metrics = [...new Set([...Object.keys(one[suite] || {}), ...Object.keys(other[suite] || {})])];
    return [h("tr", { class: "suite" }, h("th", { scope: "rowgroup", colspan: 6 }, suite)),
      ...metrics.map((metric) => {
        const [x, y] = [one[suite]?.[metric], other[suite]?.[metric]];
        return row(metric.replaceAll("_", " "), [x?.tuned.toFixed(3), y?.tuned.toFixed(3), x && y && signed(y.tuned - x.tuned), interval(x), interval(y)]);
      })];
  });
  const columns = ["Metric", "A", "B", "B − A", "A − its base [95 %]", "B − its base [95 %]"];
  const shown = names.filter((name) => name.endsWith("+examples")), plain = names.filter((name) => !shown.includes(name));
  return [plain.length > 0 && table("Measured against the base", columns, rows(plain)),
    shown.length > 0 && h("details", {}, h("summary", {}, "Against the base that is shown worked examples"), table("Against the base with examples", columns, rows(shown))),
    h("p", { class: "soft" }, "Intervals are of each run against its base. Whether B beats A is another question: both must answer the same rows. ", h("code", {}, "forge eval RUN_B --against RUN_A"), " answers it.")];
}

const interval = (found) => found && h("span", { class: found.verdict.split(" ")[0], title: `${found.verdict}, ${found.n} rows` },
  `${signed(found.difference)} [${signed(found.low)}, ${signed(found.high)}]`);

function differing(both) {
  const told = both.map(({ job }) => ({ source: job.source, ...job.options }));
  const names = [...new Set(told.flatMap(Object.keys))].filter((name) => JSON.stringify(told[0][name]) !== JSON.stringify(told[1][name]));
  if (!names.length) return h("p", { class: "soft" }, "Nothing: both had the same source and the same options.");
  const text = (value) => (value === undefined ? "default" : typeof value === "string" ? value : JSON.stringify(value));
  return table("What differs", ["Setting", "A", "B"], names.map((name) => row(name, told.map((one) => text(one[name])))));
}
