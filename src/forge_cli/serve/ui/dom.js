// Elements and how values read. Text is set as text everywhere: nothing here parses HTML.

/** An element: h("a", { href, class, on: { click } }, "text", child). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same of SVG. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [kind, act] of Object.entries(value)) node.addEventListener(kind, act);
    else if (name in PROPERTIES) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((one) => one !== undefined && one !== null && one !== false));
  return node;
}

const PROPERTIES = { value: 1, checked: 1, disabled: 1, hidden: 1 };

/** Put `children` in the place of what `node` holds. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(2).filter((one) => one !== undefined && one !== null && one !== false));
  return node;
}

/** Tell those who do not see the page. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

let ids = 0;

/** An id that no other element has. */
export const unique = (name) => `${name}-${++ids}`;

/** 3.2 GB; powers of ten, as in the report. */
export function bytes(count) {
  if (count === undefined || count === null) return "–";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; count >= 1000 && at < units.length - 1; at++) count /= 1000;
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

/** 1 h 5 min. */
export function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds < 600 && seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** A <time> that reads "5 min ago". */
export function ago(iso) {
  if (!iso) return h("span", {}, "–");
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  const text = seconds < 5 ? "just now" : `${duration(seconds).replace(/ min \d+ s/, " min")} ago`;
  return h("time", { datetime: iso, title: new Date(iso).toLocaleString() }, text);
}

/** How long a job has run or ran; "" before it starts. */
export function ran(job) {
  if (!job.started) return "";
  const end = job.ended ? Date.parse(job.ended) : Date.now();
  return duration((end - Date.parse(job.started)) / 1000);
}

/** A number with the digits that matter: 0.0123, 3.142, 1,234. */
export function number(value, digits = 3) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const small = Math.abs(value) < 0.1 && value !== 0;
  return small ? Number(value.toPrecision(2)).toString() : value.toFixed(digits);
}

/** +0.012, −0.500; a true minus, as wide as the plus. */
export function signed(value, digits = 3) {
  if (typeof value !== "number") return "–";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/** What a source is called: the last part of its path. */
export function nameOf(job) {
  const parts = job.source.replace(/\/+$/, "").replace(/\.git$/, "").split("/");
  return job.tags?.suffix || parts[parts.length - 1] || job.source;
}
