// The list of jobs, the newest first.

import { follow, get } from "./api.js";
import { ago, h, nameOf, number, put, ran, say } from "./dom.js";
import { doing, share } from "./stages.js";

const STATES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"];

/** A job's state as a badge; words carry it, colour only helps. */
export const badge = (state) => h("span", { class: `badge ${state}` }, state);

/** How far a task is: a bar with its words. */
export function meter(job) {
  const part = share(job), words = doing(job);
  return [
    job.state === "running" && part !== null &&
      h("progress", { value: part, max: 1, "aria-label": `${job.progress.stage || "progress"} of ${nameOf(job)}` }),
    h("span", { class: "doing" }, job.state === "failed" ? job.error : words),
  ];
}

export function view(root, { state: wanted = "", live }) {
  const rows = new Map();
  const body = h("tbody");
  const filter = h("select", { id: "state", on: { change: () => (location.hash = filter.value ? `#/?state=${filter.value}` : "#/") } },
    h("option", { value: "" }, "all states"), STATES.map((one) => h("option", { value: one }, one)));
  filter.value = wanted;
  const compare = h("a", { class: "button", href: "#/compare", hidden: true }, "Compare");
  const more = h("button", { hidden: true }, "Older jobs");
  const empty = h("div", { class: "empty", hidden: true });
  const table = h("table", { class: "jobs", hidden: true },
    h("thead", {}, h("tr", {}, ["", "State", "Job", "Progress", "Loss", "Created", "Ran"].map((name) =>
      h("th", { scope: "col", class: name === "Loss" || name === "Ran" ? "n" : "" }, name || h("span", { class: "unseen" }, "Compare"))))),
    body);
  put(root,
    h("div", { class: "head" }, h("h1", {}, "Jobs"),
      h("div", { class: "tools" }, h("label", { class: "unseen", for: "state" }, "State"), filter, compare, h("a", { class: "button main", href: "#/new" }, "New job"))),
    table, empty, more);

  const chosen = new Set();
  function choose(id, on) {
    chosen[on ? "add" : "delete"](id);
    if (chosen.size > 2) {
      const first = chosen.values().next().value;
      chosen.delete(first);
      rows.get(first).box.checked = false;
    }
    compare.hidden = chosen.size < 2;
    compare.href = `#/compare/${[...chosen].join("/")}`;
  }

  function make(job) {
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${job.id}`, on: { change: () => choose(job.id, box.checked) } });
    const cells = ["pick", "state", "job", "progress", "loss n", "created", "ran n"].map((name) => h("td", { class: name }));
    put(cells[0], box);
    put(cells[2], h("a", { href: `#/jobs/${job.id}` }, nameOf(job)), h("span", { class: "id" }, job.id, job.options.model && ` · ${job.options.model}`));
    const row = { node: h("tr", {}, cells), box, cells, job: null };
    rows.set(job.id, row);
    return row;
  }

  function fill(row) {
    const { job, cells } = row;
    if (row.state !== job.state) put(cells[1], badge((row.state = job.state)));
    put(cells[3], meter(job));
    put(cells[4], lossOf(job));
    put(cells[5], ago(job.created));
    put(cells[6], ran(job));
  }

  function take(job) {
    const row = rows.get(job.id) || make(job);
    if (row.job && row.job.state !== job.state) say(`${nameOf(job)}, ${job.id}: ${job.state}`);
    row.job = job;
    fill(row);
    const show = !wanted || job.state === wanted;
    if (!show) return row.node.remove();
    if (row.node.isConnected) return;
    // Ids grow, so the newest go first by id; longer ones are newer.
    const key = (id) => id.padStart(30);
    const after = [...rows.values()].filter((one) => one.node.isConnected && key(one.job.id) < key(job.id));
    after.sort((a, b) => (key(a.job.id) < key(b.job.id) ? 1 : -1));
    body.insertBefore(row.node, after[0]?.node || null);
  }

  function drop(id) {
    choose(id, false);
    rows.get(id)?.node.remove();
    rows.delete(id);
  }

  function settle() {
    const some = body.childElementCount > 0;
    table.hidden = !some;
    empty.hidden = some;
    if (some) return;
    put(empty, wanted
      ? [h("p", {}, `No job is ${wanted}.`), h("a", { href: "#/" }, "Show all jobs")]
      : [h("h2", {}, "No jobs yet"),
        h("p", {}, "Point Forge at a repository: it mines questions and answers from the code, trains a small model on them, and says whether it got better."),
        h("a", { class: "button main", href: "#/new" }, "Start the first job"),
        h("p", { class: "soft" }, "or by hand: ", h("code", {}, "forge train path/to/repo"))]);
  }

  let next = "";
  async function load(before = "") {
    const query = new URLSearchParams({ limit: "50", ...(before && { before }), ...(wanted && { state: wanted }) });
    try {
      const page = await get(`/jobs?${query}`);
      if (!root.isConnected) return;
      for (const job of page.jobs) take(job);
      if (before || !next) next = page.next;
      more.hidden = !next;
      settle();
    } catch (error) {
      if (rows.size) return;
      empty.hidden = false;
      put(empty, h("p", { class: "error", role: "alert" }, error.message), h("p", {}, error.hint), h("button", { on: { click: () => load() } }, "Try again"));
    }
  }
  more.addEventListener("click", () => load(next));
  load();

  const stop = follow("/events", {
    onState: live,
    onGap: () => load(), // what was missed meanwhile
    onMessage: (event, data) => {
      if (event === "job") take(data);
      else if (event === "removed") drop(data.id);
      settle();
    },
  });
  const ticking = setInterval(() => {
    for (const row of rows.values()) {
      put(row.cells[5], ago(row.job.created));
      put(row.cells[6], ran(row.job));
    }
  }, 10_000);
  return () => {
    stop();
    clearInterval(ticking);
  };
}

function lossOf(job) {
  const { loss, valid_loss: valid } = job.progress;
  const best = job.result?.metrics?.train?.best_valid_loss;
  const shown = best ?? valid ?? loss;
  if (shown == null) return "";
  return h("span", { title: best != null ? "best validation loss" : valid != null ? "validation loss" : "training loss" }, number(shown));
}
