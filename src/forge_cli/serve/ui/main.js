// The page: which view is shown, and whether what it shows is live.

import { h, put } from "./dom.js";

const main = document.getElementById("main");
const link = document.getElementById("link");

// Views load when they are first asked for; the list is what most come for.
const VIEWS = [
  [/^#\/(?:\?.*)?$/, "Jobs", () => import("./jobs.js"), () => ({})],
  [/^#\/jobs\/([\w-]+)$/, "Job", () => import("./job.js"), ([, id]) => ({ id })],
  [/^#\/new$/, "New job", () => import("./start.js"), () => ({})],
  [/^#\/compare(?:\/([\w-]+))?(?:\/([\w-]+))?$/, "Compare", () => import("./compare.js"), ([, a, b]) => ({ a, b })],
  [/^#\/chat(?:\/(.+))?$/, "Chat", () => import("./chat.js"), ([, model]) => ({ model: model && decodeURIComponent(model) })],
];

let leave = () => {};
let shown = 0;

async function show(first = false) {
  const hash = location.hash || "#/";
  if (!hash.startsWith("#/")) return; // an anchor within the page
  const own = ++shown;
  const [path, query] = hash.split("?");
  const found = VIEWS.map(([form, ...rest]) => [form.exec(path), ...rest]).find(([match]) => match);
  leave();
  leave = () => {};
  live("");
  for (const one of document.querySelectorAll("nav a")) {
    const current = one.hash === "#/" ? /^#\/(jobs|$)/.test(path) : path.startsWith(one.hash);
    one.toggleAttribute("aria-current", current);
    if (current) one.setAttribute("aria-current", "page");
  }
  const root = h("div", { class: "view" });
  put(main, root);
  if (!found) {
    document.title = "Forge: not found";
    put(root, h("h1", {}, "There is no such page"), h("a", { href: "#/" }, "All jobs"));
    return;
  }
  const [match, title, load, of] = found;
  document.title = `Forge: ${title}`;
  const { view } = await load();
  if (own !== shown) return;
  leave = view(root, { ...of(match), ...Object.fromEntries(new URLSearchParams(query)), live }) || leave;
  // Those who hear the page are told where they are; those who see it keep their place on a reload.
  if (!first) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

const SAYS = { live: "Live", waiting: "Reconnecting …", gone: "Not live", "": "" };

/** Whether events arrive. */
function live(state) {
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = SAYS[state];
}

addEventListener("hashchange", () => show());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
show(true);
