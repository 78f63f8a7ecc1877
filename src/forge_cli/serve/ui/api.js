// The service over HTTP: the token, errors as problems, and events that resume where they ended.

import { h } from "./dom.js";

const KEY = "forge-token";
const STALL = 60_000; // ms without a byte after which a stream is taken for dead
const LONGEST = 15_000; // ms between tries

/** What the server refused, as problem+json or as OpenAI's errors have it. */
export class Problem extends Error {
  constructor(status, body) {
    const openai = body?.error;
    super(openai?.message || body?.detail || body?.title || `the server answered ${status}`);
    this.status = status;
    this.hint = body?.hint || "";
    this.errors = Array.isArray(body?.errors) ? body.errors : [];
    this.param = openai?.param || "";
  }
}

export const hasToken = () => Boolean(sessionStorage.getItem(KEY));

/** A request with the token; asks for one where the server wants it. */
export async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { Accept: "application/json", ...options.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, { title: "The server does not answer", hint: "Is forge serve running?" });
    }
    if (response.ok) return response;
    if (response.status === 401) {
      // Another request may have brought a token meanwhile.
      if (sessionStorage.getItem(KEY) === token) await askForToken(Boolean(token));
      continue;
    }
    throw new Problem(response.status, await response.json().catch(() => null));
  }
}

export const get = async (path, options) => (await ask(path, options)).json();

/** POST of JSON, or of nothing. */
export async function post(path, body, headers = {}) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
  return (await ask(path, { method: "POST", ...sent })).json();
}

let asking = null;

function askForToken(refused) {
  asking ??= new Promise((resolve) => {
    const input = h("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-why" });
    const dialog = h("dialog", { "aria-labelledby": "token-title" },
      h("form", { method: "dialog" },
        h("h2", { id: "token-title" }, "This server asks for a token"),
        h("p", { id: "token-why", class: refused ? "error" : "soft", role: refused && "alert" },
          refused ? "The server did not accept that token." : "It is the one that forge serve was started with. It stays in this tab until you close it."),
        h("label", { for: "token" }, "Token"), input,
        h("div", { class: "buttons" }, h("button", { class: "main" }, "Continue"))));
    dialog.addEventListener("close", () => {
      if (!input.value.trim()) return dialog.showModal(); // nothing works without
      sessionStorage.setItem(KEY, input.value.trim());
      asking = null;
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/**
 * Server-sent events by fetch, as EventSource can send no token. Resumes by Last-Event-ID with a
 * growing, jittered pause; `isOver` says whether an end of the stream is the end of it all.
 *
 * @returns a function that stops it
 */
export function follow(path, { onMessage, last = "", onId = () => {}, onState = () => {}, onGap = () => {}, isOver = () => false }) {
  const stop = new AbortController();
  let tries = 0, wake = null;
  const hurry = () => wake?.();
  addEventListener("online", hurry);

  async function once() {
    const one = new AbortController();
    const end = () => one.abort();
    stop.signal.addEventListener("abort", end);
    let stall = setTimeout(end, STALL), settled;
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const response = await ask(path, { headers, signal: one.signal, cache: "no-store" });
      if (tries) onGap();
      onState("live");
      settled = setTimeout(() => (tries = 0), 5_000); // one that ends at once is no success
      for await (const message of messages(response, () => {
        clearTimeout(stall);
        stall = setTimeout(end, STALL);
      })) {
        const data = parsed(message.data);
        if (data) onMessage(message.event, data);
        if (message.id) onId((last = message.id));
      }
    } finally {
      clearTimeout(stall);
      clearTimeout(settled);
      stop.signal.removeEventListener("abort", end);
    }
  }

  (async () => {
    while (!stop.signal.aborted) {
      try {
        await once();
        if (isOver()) {
          onState("");
          break;
        }
      } catch (error) {
        if (stop.signal.aborted) break;
        if (error instanceof Problem && [403, 404].includes(error.status)) {
          onState("gone", error);
          break;
        }
      }
      if (stop.signal.aborted) break;
      if (tries) onState("waiting");
      const pause = Math.min(LONGEST, 500 * 2 ** tries++) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, pause);
      });
    }
    removeEventListener("online", hurry);
  })();
  return () => {
    stop.abort();
    hurry();
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // one message that is broken must not keep the others away
  }
}

/** The messages of a stream of events: { id, event, data }. */
export async function* messages(response, onBytes = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      text += value;
      const blocks = text.split(/\r\n\r\n|\n\n|\r\r/);
      text = blocks.pop();
      for (const block of blocks) {
        const message = { id: "", event: "message", data: [] };
        for (const line of block.split(/\r\n|\n|\r/)) {
          const [, field, content] = /^([^:]*):? ?(.*)$/.exec(line);
          if (field === "data") message.data.push(content);
          else if (field === "id" || field === "event") message[field] = content;
        }
        if (message.data.length) yield { ...message, data: message.data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A link to a file; with a token it is fetched first, as a link sends none. */
export function fileLink(path, text, name = "") {
  if (!hasToken()) return h("a", { href: path, ...(name ? { download: name } : { target: "_blank", rel: "noopener" }) }, text);
  const link = h("a", { href: path, download: name || "report.html" }, text);
  link.addEventListener("click", async (event) => {
    if (link.href.startsWith("blob:")) return;
    event.preventDefault();
    const label = link.textContent;
    link.textContent = "fetching …";
    try {
      link.href = URL.createObjectURL(await (await ask(path)).blob());
      link.click();
      const made = link.href;
      link.href = path;
      setTimeout(() => URL.revokeObjectURL(made), 60_000);
      link.textContent = label;
    } catch (error) {
      link.textContent = `${label}: ${error.message}`;
    }
  });
  return link;
}
