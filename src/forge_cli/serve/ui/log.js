// A log that follows its end until one scrolls up.

import { fileLink } from "./api.js";
import { h } from "./dom.js";

const MOST = 400_000; // characters that are kept on the page

export function log(path) {
  const text = h("pre", { class: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Log" });
  const box = h("input", { type: "checkbox", checked: true, on: { change: () => box.checked && down() } });
  const empty = h("p", { class: "soft" }, "The log is empty until the job starts.");
  const cut = h("p", { class: "soft", hidden: true }, "The beginning is left out here.");
  const node = h("section", { "aria-labelledby": "log-title" },
    h("div", { class: "head" }, h("h2", { id: "log-title" }, "Log"),
      h("div", { class: "tools" }, h("label", { class: "check" }, box, "Follow"), fileLink(path, "all of it", "log.txt"))),
    empty, cut, text);
  text.hidden = true;
  let kept = 0;
  const down = () => (text.scrollTop = text.scrollHeight);
  text.addEventListener("scroll", () => {
    box.checked = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
  });
  return {
    node,
    add(more) {
      if (!more) return;
      const following = box.checked;
      text.hidden = false;
      empty.hidden = true;
      text.append(more);
      kept += more.length;
      while (kept > MOST && text.childNodes.length > 1) {
        kept -= text.firstChild.length;
        text.firstChild.remove();
        cut.hidden = false;
      }
      if (following) down();
    },
  };
}
