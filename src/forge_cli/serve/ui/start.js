// Start a job: a folder, a git URL or a file of examples; errors stand at their field.

import { ask, post } from "./api.js";
import { h, put, unique } from "./dom.js";

const MODELS = ["smollm2-135m"];

export function view(root) {
  const fields = {};

  function field(name, label, hint, props = {}) {
    const id = unique(name), help = `${id}-hint`, fault = `${id}-error`;
    const input = h(props.tag || "input", { id, name, "aria-describedby": `${fault} ${help}`, autocomplete: "off", spellcheck: "false", ...props, tag: null });
    const error = h("p", { class: "error", id: fault });
    fields[name] = { input, error };
    input.addEventListener("input", () => mark(name, ""));
    const box = props.type === "checkbox";
    return h("div", { class: box ? "field box" : "field" },
      box ? [h("label", { class: "check", for: id }, input, label)] : [h("label", { for: id }, label), input],
      error, h("p", { class: "hint", id: help }, hint));
  }

  function mark(name, text) {
    const { input, error } = fields[name];
    error.textContent = text;
    input.toggleAttribute("aria-invalid", Boolean(text));
    if (text) input.setAttribute("aria-invalid", "true");
  }

  const above = h("div", { class: "trouble", role: "alert", hidden: true });
  const send = h("button", { class: "main" }, "Start the job");
  const models = h("datalist", { id: "models" }, MODELS.map((value) => h("option", { value })));
  const form = h("form", { class: "form", novalidate: true },
    field("source", "Source", "A folder that the server may read, or a git URL of an allowed host: /repos/shop, https://github.com/me/shop, https://github.com/me/shop#branch", { required: true }),
    field("upload", "or examples from a file", "JSON lines, a chat in each; trains on them alone.", { type: "file", accept: ".jsonl,application/jsonl" }),
    field("model", "Model", "Built-in name, Hugging Face id, or a path on the server. Empty: smollm2-135m.", { list: "models" }), models,
    h("fieldset", {}, h("legend", {}, "How long"), h("div", { class: "row" },
      field("steps", "Steps", "Optimiser steps", { inputmode: "numeric" }),
      field("budget", "or time", "Such as 45m or 1h30m", {}),
      field("epochs", "or passes", "Over the examples; 1 if all are empty", { inputmode: "decimal" }))),
    h("fieldset", {}, h("legend", {}, "Afterwards"),
      field("export", "Write a GGUF", "One file for Ollama, llama.cpp and LM Studio.", { type: "checkbox" }),
      field("deploy", "Serve it as", "A name in Ollama, such as shop. Empty: it is not served. A model that was judged worse than its base is not.")),
    h("details", {}, h("summary", {}, "More options"),
      field("more", "Settings", "One on a line, as in forge.yaml: rank: 32", { tag: "textarea", rows: 5 }),
      field("priority", "Priority", "−100 to 100; the higher one goes first.", { inputmode: "numeric" })),
    h("div", { class: "buttons" }, send));
  put(root, h("h1", {}, "New job"), above, form);

  const upload = fields.upload.input;

  /** The request that the form stands for; what it cannot mean is an error at its field. */
  function request() {
    const value = (name) => fields[name].input.value.trim();
    const options = {};
    for (const line of value("more").split("\n").filter((one) => one.trim())) {
      const found = /^\s*([\w]+)\s*[:=]\s*(.+?)\s*$/.exec(line);
      if (!found) throw new Fault("more", `“${line.trim()}” is not a name, a colon and a value`);
      options[found[1]] = meant(found[2]);
    }
    if (value("model")) options.model = value("model");
    for (const name of ["steps", "epochs"]) if (value(name)) options[name] = meant(value(name));
    if (value("budget")) options.budget = value("budget");
    const priority = value("priority") && meant(value("priority").replace("−", "-"));
    if (!value("source") && !upload.files.length) throw new Fault("source", "Say what to train on: a folder, a git URL, or a file below.");
    return { source: value("source"), options, export: fields.export.input.checked, deploy: value("deploy"), priority: priority || 0 };
  }

  let key = "", before = "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const name of Object.keys(fields)) mark(name, "");
    above.hidden = true;
    send.disabled = true;
    try {
      const wanted = request();
      if (upload.files.length) wanted.source = await sent(upload.files[0]);
      // The same request sent again, as after a lost connection, makes no second job.
      const text = JSON.stringify(wanted);
      if (text !== before) [before, key] = [text, [...crypto.getRandomValues(new Uint32Array(4))].map((one) => one.toString(16)).join("-")];
      const job = await post("/fine-tune", wanted, { "Idempotency-Key": key });
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      refuse(error);
    } finally {
      send.disabled = false;
    }
  });

  function refuse(error) {
    const found = error instanceof Fault ? [error] : faults(error, fields);
    const rest = [];
    for (const { name, message } of found) name ? mark(name, message) : rest.push(message);
    const first = Object.keys(fields).find((name) => fields[name].error.textContent);
    if (rest.length) {
      above.hidden = false;
      put(above, rest.map((text) => h("p", {}, text)), error.hint && h("p", { class: "soft" }, error.hint));
    }
    if (!first) return;
    const closed = fields[first].input.closest("details");
    if (closed) closed.open = true;
    fields[first].input.focus();
  }
}

/** The id of a file that the server has taken. */
async function sent(file) {
  const body = new FormData();
  body.append("purpose", "fine-tune");
  body.append("file", file);
  try {
    return (await (await ask("/v1/files", { method: "POST", body })).json()).id;
  } catch (error) {
    throw new Fault("upload", `${error.message} ${error.hint || ""}`);
  }
}

class Fault extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

/** What a problem says, each with the field that it is about, if any. */
function faults(problem, fields) {
  const place = (where) => {
    const names = where.split(/[^\w]+/).filter((part) => part && part !== "body" && part !== "options");
    if (names[0] in fields) return names[0];
    return /\boptions\b/.test(where) ? "more" : "";
  };
  if (problem.errors.length) return problem.errors.map(({ where, what }) => ({ name: place(where), message: what }));
  const { message, hint = "" } = problem;
  const head = /^(options[.:] ?\w+|source|deploy|priority|export|budget)\b/.exec(message)?.[0] || "";
  const name = head && place(head);
  return [{ name, message: name && hint ? `${message}. ${hint}` : message }];
}

/** A value as YAML would read it, as far as settings need: numbers, true, [lists], else text. */
function meant(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text.replace(/^'(.*)'$/, "$1");
  }
}
