// The RAFT answer form, as core/answer_form.py has it: how documents are shown, and an answer read.

export const SYSTEM =
  "Answer the question from the numbered documents. Write:\n" +
  "##Reason: which document holds the answer, then the evidence copied from it word for " +
  "word between ##begin_quote## and ##end_quote##.\n" +
  "##Answer: the answer alone.\n" +
  "If no document holds it, quote nothing and write: ##Answer: The documents do not contain the answer.";

/** The user's turn: numbered documents, then the question. */
export function showDocuments(documents, question) {
  const shown = documents.map((one, at) => `[${at + 1}] ${one.path}\n${one.text.replace(/^\n+|\n+$/g, "")}`);
  return `${shown.join("\n\n")}\n\nQuestion: ${question}`;
}

/**
 * The parts of an answer that may still be growing, in order.
 *
 * @returns a list of { kind: "reason" | "quote" | "answer" | "text", text, open }
 */
export function parts(text) {
  const border = text.indexOf("##Answer:");
  // A mark that has only begun to arrive is not shown for a moment as text.
  const before = border < 0 ? text.replace(/##?[A-Za-z_]*#?$/, "") : text.slice(0, border);
  const inForm = /^\s*##Reason:/.test(before) || before.includes("##begin_quote##") || border >= 0;
  if (!inForm) return /^\s*##?[A-Za-z]*$/.test(text) ? [] : [{ kind: "text", text }];
  const found = [];
  const add = (kind, content, open = false) => content.trim() && found.push({ kind, text: kind === "quote" ? bare(content) : content.trim(), open });
  let rest = before.replace(/^\s*##Reason:/, "");
  for (;;) {
    const start = rest.indexOf("##begin_quote##");
    if (start < 0) break;
    add("reason", rest.slice(0, start));
    rest = rest.slice(start + 15);
    const end = rest.indexOf("##end_quote##");
    add("quote", end < 0 ? rest : rest.slice(0, end), end < 0);
    rest = end < 0 ? "" : rest.slice(end + 13);
  }
  add("reason", rest);
  if (border >= 0) add("answer", text.slice(border + 9));
  return found;
}

// A quote keeps its indentation.
const bare = (text) => text.replace(/^\s*\n|\s+$/g, "");

/** Where a quote stands word for word: { number, path, line }, or null. */
export function findQuote(quote, documents) {
  for (const [at, one] of documents.entries()) {
    const place = one.text.indexOf(quote);
    if (place >= 0) return { number: at + 1, path: one.path, line: one.text.slice(0, place).split("\n").length };
  }
  return null;
}
