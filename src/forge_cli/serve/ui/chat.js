// Talk to a model; an answer in the RAFT form shows its reason, its quotes and where they stand.

import { ask, get, messages } from "./api.js";
import { SYSTEM, findQuote, parts, showDocuments } from "./answer.js";
import { bytes, h, put, say } from "./dom.js";

const MOST = 200_000; // characters of a document; beyond it no small model reads on

export function view(root, { model: wanted }) {
  const turns = h("div", { class: "turns", role: "log", "aria-label": "Conversation", "aria-live": "off" });
  const model = h("select", { id: "model" });
  const text = h("textarea", { id: "question", rows: 2, placeholder: "Ask about the code", "aria-describedby": "how" });
  const send = h("button", { class: "main" }, "Ask"), halt = h("button", { type: "button", hidden: true, on: { click: () => running?.abort() } }, "Stop");
  const clear = h("button", { type: "button", on: { click: () => reset() } }, "New chat");
  const pick = h("input", { type: "file", id: "documents", multiple: true, on: { change: () => attach([...pick.files]) } });
  const list = h("ul", { class: "files" });
  const wide = matchMedia("(min-width: 56rem)");
  const docs = h("details", { open: wide.matches }), title = h("summary");
  const hello = h("div", { class: "empty" });
  const form = h("form", { class: "ask" }, h("label", { for: "question", class: "unseen" }, "Question"), text,
    h("div", { class: "buttons" }, send, halt, h("span", { class: "hint", id: "how" }, "Enter asks, Shift+Enter breaks the line")));
  put(root, h("div", { class: "head" }, h("h1", {}, "Chat"), h("div", { class: "tools" }, h("label", { for: "model" }, "Model"), model, clear)),
    h("div", { class: "columns chat" },
      h("div", {}, hello, turns, form),
      h("aside", {}, docs)));
  put(docs, title,
    h("p", { class: "soft" }, "Files that an answer should come from. They go to the model before the question, and its quotes are looked up in them."),
    h("label", { for: "documents", class: "unseen" }, "Add documents"), pick, list);

  let documents = [], history = [], running = null;
  showDocumentList();

  function reset() {
    running?.abort();
    history = [];
    put(turns);
    hello.hidden = false;
    text.focus();
  }

  async function attach(files) {
    for (const file of files) documents.push({ path: file.name, text: (await file.text()).slice(0, MOST), size: file.size });
    pick.value = "";
    showDocumentList();
  }

  function showDocumentList() {
    put(title, h("h2", {}, documents.length ? `Documents (${documents.length})` : "Documents"));
    put(list, documents.map((one, at) => h("li", {}, h("span", {}, `[${at + 1}] ${one.path} `, h("span", { class: "soft" }, bytes(one.size))),
      h("button", { class: "small", "aria-label": `Remove ${one.path}`, on: { click: () => {
        documents = documents.filter((other) => other !== one);
        showDocumentList();
      } } }, "Remove"))));
  }

  get("/v1/models").then(({ data }) => {
    put(model, data.map((one) => h("option", { value: one.id }, one.id)));
    const one = wanted && data.find(({ id }) => id === wanted || id.endsWith(`:${wanted}`)); // by name or by job
    if (one) model.value = one.id;
    send.disabled = !data.length;
    put(hello, data.length
      ? [h("h2", {}, "Ask the model"), h("p", {}, "A model that Forge trained answers best from documents: add the files that hold the answer, then ask. Its quotes are checked word for word.")]
      : [h("h2", {}, "No model to talk to yet"), h("p", {}, "Start a job that writes a GGUF or is served under a name; when it is done, its model stands here."), h("a", { class: "button main", href: "#/new" }, "New job")]);
  }).catch((error) => {
    send.disabled = true;
    put(hello, h("p", { class: "error", role: "alert" }, error.message), h("p", {}, error.hint));
  });

  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value.trim() && !running && !send.disabled) talk(text.value.trim());
  });

  async function talk(question) {
    const shown = documents; // as they are now: the answer may come when others are chosen
    // A RAFT model is trained on single questions under their documents; else the talk goes along.
    const sent = shown.length
      ? [{ role: "system", content: SYSTEM }, { role: "user", content: showDocuments(shown, question) }]
      : [...history, { role: "user", content: question }];
    text.value = "";
    hello.hidden = true;
    const answer = h("div", { class: "turn answer", "aria-busy": "true" }, h("p", { class: "soft" }, "…"));
    turns.append(h("div", { class: "turn question" }, h("p", {}, question)), answer);
    docs.open = docs.open && wide.matches;
    form.scrollIntoView({ block: "end" });
    running = new AbortController();
    halt.hidden = false;
    send.hidden = true;
    let found = "";
    try {
      const body = JSON.stringify({ model: model.value, messages: sent, stream: true, temperature: 0 });
      const response = await ask("/v1/chat/completions", { method: "POST", body, signal: running.signal, headers: { "Content-Type": "application/json", Accept: "text/event-stream" } });
      for await (const { data } of messages(response)) {
        if (data === "[DONE]") break;
        const told = JSON.parse(data);
        if (told.error) throw Object.assign(new Error(told.error.message), { hint: "" });
        found += told.choices?.[0]?.delta?.content || "";
        const follows = form.getBoundingClientRect().bottom <= innerHeight + 80;
        put(answer, render(found, shown));
        if (follows) form.scrollIntoView({ block: "end" });
      }
      history.push({ role: "user", content: question }, { role: "assistant", content: found });
      if (!found) put(answer, h("p", { class: "soft" }, "The model said nothing."));
      const last = parts(found).pop();
      say(last ? `Answer: ${last.text}` : "No answer");
    } catch (error) {
      const stopped = error.name === "AbortError";
      if (!found) put(answer); // the dots that stood for it
      answer.append(h("p", { class: stopped ? "soft" : "error", role: stopped ? null : "alert" }, stopped ? "Stopped." : `${error.message} ${error.hint || ""}`));
    } finally {
      running = null;
      halt.hidden = true;
      send.hidden = false;
      answer.removeAttribute("aria-busy");
      text.focus();
    }
  }

  return () => running?.abort();
}

/** The parts of an answer; everything that a model wrote is text. */
export function render(answer, documents) {
  return parts(answer).map(({ kind, text, open }, at) => {
    if (kind === "quote") {
      const place = findQuote(text, documents);
      const where = place ? `[${place.number}] ${place.path}, line ${place.line}` : open ? "" : documents.length ? "in none of the documents" : "quoted; no documents to look it up in";
      return h("figure", { class: `quote ${place ? "found" : documents.length && !open ? "missing" : ""}` }, h("blockquote", {}, h("pre", {}, text)), where && h("figcaption", {}, where));
    }
    if (kind === "reason") return h("div", { class: "reason" }, at === 0 && h("span", { class: "tag" }, "Reason"), h("p", {}, text));
    return h("div", { class: "final" }, kind === "answer" && h("span", { class: "tag" }, "Answer"), h("p", {}, text));
  });
}
