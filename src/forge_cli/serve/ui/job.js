// One job: how far it is, its curves, its log, what it made, and what one may do with it.

import { ask, fileLink, follow, get, post } from "./api.js";
import { chart } from "./chart.js";
import { ago, bytes, h, nameOf, number, put, ran, say } from "./dom.js";
import { badge } from "./jobs.js";
import { log } from "./log.js";
import { Rows, asLoss, asMemory, lossCurves, memoryCurve } from "./metrics.js";
import { doing, path, share, stageOf } from "./stages.js";

const OVER = ["succeeded", "failed", "cancelled"];
const ACTS = {
  pause: ["Pause", ["queued", "running"]],
  resume: ["Resume", ["paused"]],
  retry: ["Retry", ["failed", "cancelled"]],
  cancel: ["Cancel", ["queued", "running", "paused"]],
  remove: ["Remove", OVER],
};
// What is asked before an act that cannot be taken back.
const SURE = {
  cancel: { yes: "Cancel the job", what: "Its process ends. What it has done is kept, and Retry goes on from there." },
  remove: { yes: "Remove the job", what: "Its log, its curves and its files go for good. A model that is served under a name stays, as do files on another machine until a worker there clears up." },
};

export function view(root, { id, live }) {
  const here = `/jobs/${id}`;
  const rows = new Rows();
  let job = null, stop = () => {}, left = false, reported = false, elsewhere = false;

  const title = h("h1", {}, id), state = h("span"), lead = h("p", { class: "lead" });
  const acts = h("div", { class: "tools" }), trouble = h("div", { class: "trouble", hidden: true });
  const refused = h("p", { class: "error", role: "alert" });
  const stages = h("ol", { class: "stages", "aria-label": "Stages" }), now = h("div", { class: "present" });
  const loss = chart({ label: "Loss, nats a token", format: asLoss, empty: "The curve begins with the first step of training." });
  const memory = chart({ label: "Memory", format: asMemory, height: 130, empty: "Measured with each step." });
  const lines = log(`${here}/logs`);
  const facts = h("div"), options = h("div"), result = h("div"), files = h("div");
  put(root,
    h("p", { class: "crumb" }, h("a", { href: "#/" }, "Jobs"), ` / ${id}`),
    h("div", { class: "head" }, h("div", { class: "title" }, title, state), acts),
    lead, refused, trouble, stages, now,
    h("div", { class: "columns" },
      h("div", {}, loss.node, memory.node, lines.node),
      h("aside", {}, h("section", { class: "result" }, h("h2", {}, "Result"), result),
        h("section", {}, h("h2", {}, "Files"), files),
        h("section", {}, h("h2", {}, "Job"), facts), h("section", {}, h("h2", {}, "Options"), options))));

  const buttons = Object.entries(ACTS).map(([act, [label]]) => {
    const button = h("button", { hidden: true, class: act in SURE && "danger", on: { click: () => (act in SURE ? confirmed(act) : go(act)) } }, label);
    return [act, button];
  });
  const again = h("a", { class: "button", hidden: true }, "Compare");
  put(acts, again, buttons.map(([, button]) => button));

  async function go(act) {
    put(refused);
    try {
      if (act === "remove") {
        await ask(here, { method: "DELETE" });
        say(`${nameOf(job)}, ${id}: removed`);
        location.hash = "#/";
        return;
      }
      take(await post(`${here}/${act}`));
      if (left) return;
      stop();
      listen(); // a stream of a job that was over has ended
    } catch (error) {
      put(refused, `${error.message} ${error.hint}`);
    }
  }

  function confirmed(act) {
    const yes = h("button", { class: "danger", value: "yes" }, SURE[act].yes);
    const dialog = h("dialog", { "aria-labelledby": "sure" }, h("form", { method: "dialog" },
      h("h2", { id: "sure" }, `${ACTS[act][0]} ${nameOf(job)}?`),
      h("p", {}, SURE[act].what),
      h("div", { class: "buttons" }, h("button", { value: "no", autofocus: true }, "Keep it"), yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue === "yes") go(act);
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  function take(found) {
    const before = job;
    job = found;
    const name = nameOf(job);
    if (before?.state !== job.state || before?.wanted !== job.wanted) {
      if (before) say(`${name}: ${job.state}. ${doing(job)}`);
      put(title, name);
      put(state, badge(job.state));
      for (const [act, button] of buttons) {
        const had = document.activeElement === button;
        button.hidden = !ACTS[act][1].includes(job.state);
        button.disabled = job.state === "running" && (job.wanted === "cancel" || (act === "pause" && job.wanted === "pause"));
        if (had && (button.hidden || button.disabled)) document.getElementById("main").focus({ preventScroll: true });
      }
      again.hidden = job.state === "queued";
      again.href = `#/compare/${id}`;
      showTrouble();
    }
    if (!before || OVER.includes(job.state) !== OVER.includes(before.state) || stageOf(job) !== stageOf(before)) showFiles();
    const part = share(job);
    document.title = `${job.state === "running" && part !== null ? `${Math.round(part * 100)} % ` : ""}${name}: ${job.state}`;
    put(lead, job.source);
    showStages(part);
    put(facts, pairs({
      Created: ago(job.created), Started: job.started && ago(job.started), Ran: ran(job), On: job.host, Worker: job.worker,
      Attempt: job.attempt > 1 && `${job.attempt}`, Priority: job.priority && `${job.priority}`,
      Export: (job.export || job.deploy) && "GGUF", Deploy: job.deploy,
      ...job.tags,
    }));
    put(options, pairs(Object.fromEntries(Object.entries(job.options).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)])), "All as the defaults are."));
    showResult();
  }

  function showTrouble() {
    trouble.hidden = !job.error;
    put(trouble, h("strong", {}, job.error), job.hint && h("p", {}, job.hint),
      job.state === "failed" && h("p", { class: "soft" }, rows.list.length ? "Retry goes on from the last checkpoint." : "Retry begins it again; what was mined is kept."));
  }

  function showStages(part) {
    const words = { done: "done", now: "under way", stopped: "failed here or after", halted: "stopped here", todo: "to come" };
    put(stages, path(job).map((one) => h("li", { class: one.state, "aria-current": one.state === "now" && "step" }, one.name, h("span", { class: "unseen" }, `: ${words[one.state]}`))));
    const { stage, detail, step } = job.progress;
    now.hidden = OVER.includes(job.state);
    put(now, OVER.includes(job.state) ? [] : [
      job.state === "running" && part !== null && h("progress", { value: part, max: 1, "aria-label": stage || "progress" }),
      h("span", {}, [doing(job), detail, job.state === "paused" && step != null && `at step ${step}; Resume goes on from there`].filter(Boolean).join(" · ")),
    ]);
  }

  function showResult() {
    const { verdict, eval: judged, deploy } = job.result?.metrics || {};
    const links = [reported && fileLink(`${here}/report`, judged ? "Report: every answer" : "Report"), job.state === "succeeded" && (job.deploy || (job.export && !elsewhere)) && h("a", { href: `#/chat/${id}` }, "Chat with it")].filter(Boolean);
    const best = rows.best, last = rows.list[rows.list.length - 1];
    const outcome = verdict?.outcome;
    put(result,
      outcome && h("p", { class: "outcome" }, "Is it better? ", h("strong", { class: outcome.split(" ")[0] }, outcome)),
      pairs({
        Steps: last && number(last.step), "Best validation": best && `${number(best[1])} at step ${best[0]}`,
        "Most memory": rows.list.length > 0 && bytes(rows.points("peak_bytes").reduce((most, [, y]) => Math.max(most, y), 0)),
        Served: deploy?.version || deploy?.name,
      }),
      !last && !outcome && h("p", { class: "soft" }, OVER.includes(job.state) ? "Nothing was trained." : "What training and judging find stands here."),
      links.length > 0 && h("p", { class: "links" }, links));
    loss.node.hidden = memory.node.hidden = !last && OVER.includes(job.state);
  }

  async function showFiles() {
    let found;
    try {
      found = await get(`${here}/artifacts`);
    } catch (error) {
      // Such as of a job that ran on another machine, which is named.
      if (left) return;
      elsewhere = error.status === 409;
      showResult();
      put(files, h("p", { class: "soft" }, `${error.message}.`), error.hint && h("p", { class: "soft" }, `${error.hint}.`));
      return;
    }
    if (left) return;
    reported = found.artifacts.some((one) => one.path.endsWith("report.html"));
    showResult();
    const order = [...found.artifacts].sort((a, b) => b.path.endsWith(".gguf") - a.path.endsWith(".gguf"));
    const item = (one) => h("li", {}, fileLink(one.link, one.path, one.path.split("/").pop()), h("span", { class: "soft" }, bytes(one.bytes)));
    put(files, order.length ? h("ul", { class: "files" }, order.slice(0, 8).map(item)) : h("p", { class: "soft" }, "None yet."),
      order.length > 8 && h("details", {}, h("summary", {}, `${order.length - 8} more`), h("ul", { class: "files" }, order.slice(8).map(item))));
  }

  let last = "";
  function listen() {
    stop = follow(`${here}/events`, {
      last,
      onId: (found) => (last = found),
      isOver: () => job && OVER.includes(job.state),
      onState(found, error) {
        live(found);
        if (found === "gone") gone(error.message);
      },
      onMessage(event, data) {
        if (event === "job") take(data);
        else if (event === "removed") gone("It was removed.");
        else if (event === "log") lines.add(data.text);
        else if (event === "metrics") {
          rows.add(data.rows);
          draw();
        }
      },
    });
  }

  function gone(why) {
    left = true;
    stop();
    put(root, h("h1", {}, "There is no such job"), h("p", { class: "lead" }, why), h("a", { href: "#/" }, "All jobs"));
  }

  let due = 0;
  function draw() {
    due ||= setTimeout(drawn, 50); // the past of a job comes in many messages at once
  }

  function drawn() {
    due = 0;
    loss.update(lossCurves(rows));
    memory.update(memoryCurve(rows));
    if (!job) return;
    showResult();
    showStages(share(job));
  }

  loss.update([]);
  memory.update([]);
  listen();
  const ticking = setInterval(() => job && !left && take(job), 10_000);
  return () => {
    left = true;
    stop();
    clearInterval(ticking);
  };
}

function pairs(facts, otherwise) {
  const some = Object.entries(facts).filter(([, value]) => value);
  if (!some.length) return otherwise && h("p", { class: "soft" }, otherwise);
  return h("dl", {}, some.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
