// An answer as elements: sentences with the marks of their quotes, sources, conflicts, and what kept it silent.

import { counted, element, named, percent, quiet } from "./dom.js";

const MARKERS = /\s*\[\d+(?:\s*,\s*\d+)*\]/g;
// The end of a text that is still being written, where a marker may have begun.
const BEGUN = /\s*\[[\d,\s]*$/;

export function placeOf({ version, page, section }) {
  const parts = page === null ? [] : [`page ${page}`];
  if (section.length) parts.push(section[section.length - 1]);
  if (version > 1) parts.push(`version ${version}`);
  return parts.join(", ");
}

// Text as it is still being written, without its markers: they count passages, and become marks when it is judged.
export function unmarked(text) {
  return text.replace(MARKERS, "").replace(BEGUN, "");
}

function cite(citation, position, open) {
  const place = placeOf(citation);
  const label = `Source ${position + 1}: ${citation.document}${place ? `, ${place}` : ""}`;
  return element("button", {
    type: "button", className: "cite", "aria-label": label, title: label, "aria-expanded": "false",
    on: { click: ({ currentTarget }) => open(citation, currentTarget) },
  }, String(position + 1));
}

// The words of a sentence; those that answer are strong. Offsets count characters as the server does.
function words(claim, short) {
  if (claim.text.includes(" | ")) {
    const cells = claim.text.split(" | ").flatMap((cell, at) => (at ? [element("i", {}, " | "), cell] : [cell]));
    return [element("span", { className: "cells" }, ...cells)];
  }
  const letters = Array.from(claim.text);
  const [first, last] = short ? [short.start - claim.start, short.end - claim.start] : [0, 0];
  if (first < 0 || first >= last || letters.slice(first, last).join("") !== short.text) return [claim.text];
  return [letters.slice(0, first).join(""), element("strong", {}, short.text), letters.slice(last).join("")];
}

function sentence(claim, answer, open) {
  const said = element("span", { className: "sentence", dir: "auto" }, ...words(claim, answer.short_answer));
  const marks = claim.citations.map((at) => cite(answer.citations[at], at, open));
  if (!claim.checkable || claim.supported) return [said, ...marks];
  said.classList.add("doubtful");
  return [said, ...marks, element("small", { className: "doubt" }, " not supported by the documents")];
}

// All sentences so far. What stands between two in the text, if it breaks lines, breaks them here.
export function sentences(answer, open) {
  const letters = Array.from(answer.text);
  return answer.claims.flatMap((claim, at) => {
    const before = answer.claims[at - 1];
    if (!before) return sentence(claim, answer, open);
    const gap = letters.slice(before.end, claim.start).join("").replace(MARKERS, "");
    const isRow = before.text.includes(" | ") || claim.text.includes(" | ");
    const between = /\n\s*\n/.test(gap) ? "\n\n" : isRow || gap.includes("\n") ? "\n" : " ";
    return [between, ...sentence(claim, answer, open)];
  });
}

function support(score) {
  return element("span", { className: "support", title: "How much of the sentence the quote supports" },
    element("span", { className: "unseen" }, "Support "), percent(score));
}

function isHidden(citation, answer) {
  return answer.passages.some(({ chunk_id, kind }) => chunk_id === citation.chunk_id && kind === "hidden");
}

function opener(citation, open) {
  return element("button", {
    type: "button", className: "link", "aria-expanded": "false",
    on: { click: ({ currentTarget }) => open(citation, currentTarget) },
  }, named(citation.document));
}

function cellsOf(citation) {
  if (!citation.cells.length) return null;
  const pairs = citation.cells.flatMap(({ column, text }) => [element("dt", {}, column || "Cell"), element("dd", {}, text)]);
  return element("dl", { className: "row-cells" }, ...pairs);
}

// A row whose cells all stand below it with their columns needs no line of its own.
function quoteOf(citation) {
  const whole = citation.cells.length && citation.cells.length === citation.quote.split(" | ").length;
  return whole ? null : element("blockquote", { dir: "auto" }, citation.quote);
}

function source(citation, position, answer, open) {
  const others = citation.also_in.map(({ document }) => document);
  return element("li", {},
    element("div", { className: "source-head" },
      element("span", { className: "number" }, String(position + 1)),
      opener(citation, open),
      element("span", { className: "quiet" }, placeOf(citation)),
      isHidden(citation, answer) && element("span", { className: "tag" }, "hidden text"),
      support(citation.score)),
    quoteOf(citation),
    cellsOf(citation),
    others.length > 0 && quiet("Also in ", ...others.flatMap((name, at) => (at ? [", ", named(name)] : [named(name)]))));
}

function conflictOf({ differs, statements }, open) {
  const kinds = { number: "Different numbers", date: "Different dates", negation: "One says yes, the other no" };
  const sides = statements.map(({ citation, date }) => element("li", {},
    element("div", { className: "source-head" },
      opener(citation, open), element("span", { className: "quiet" }, [placeOf(citation), date.slice(0, 10)].filter(Boolean).join(", "))),
    element("blockquote", { dir: "auto" }, citation.quote)));
  return [element("p", { className: "quiet" }, kinds[differs] ?? differs), element("ul", { className: "sources" }, ...sides)];
}

// A passage as if it had been cited, so that it can be opened like a source.
function asCitation(passage) {
  return { ...passage, quote: passage.text, source_start: passage.start, source_end: passage.end, cells: [], score: null };
}

function silence(answer, open) {
  const nearest = answer.passages.slice(0, 3).map(asCitation).map((citation) => element("li", {},
    element("div", { className: "source-head" }, opener(citation, open), element("span", { className: "quiet" }, placeOf(citation))),
    element("blockquote", { className: "short-quote", dir: "auto" }, citation.quote)));
  return element("div", { className: "silence" },
    element("p", { className: "lead" }, unmarked(answer.text)),
    quiet("No passage was found that answers this, and nothing is made up. Other words may help, or another collection."),
    nearest.length > 0 && element("details", {},
      element("summary", {}, "The nearest passages"), element("ul", { className: "sources" }, ...nearest)));
}

function meta(answer, seconds) {
  const parts = [`${answer.cached ? "Remembered from an earlier question" : `Written by ${answer.generator}`} in ${seconds.toFixed(1)} s`];
  if (answer.citations.length) parts.push(`checked by ${answer.judge}`);
  if (answer.withheld) parts.push(`${counted(answer.withheld, "sentence")} withheld as unsupported`);
  return quiet(`${parts.join(" · ")} · `, element("span", { className: "id" }, answer.id));
}

// The whole answer below its question. `open` shows a citation's source: it gets the citation and what was pressed.
export function answered(answer, seconds, open) {
  const { short_answer: short, claims, citations, conflicts, queries, notice } = answer;
  const shown = [];
  if (queries[0]?.role === "standalone") shown.push(quiet("Understood as: ", element("q", {}, queries[0].text)));
  if (notice) shown.push(element("p", { className: "notice" }, notice));
  if (answer.abstained) return [...shown, silence(answer, open), meta(answer, seconds)];
  if (short && claims[0]?.text !== short.text && short.end <= claims[0]?.end) {
    shown.push(element("p", { className: "short", dir: "auto" }, short.text));
  }
  const said = claims.length ? sentences(answer, open) : [unmarked(answer.text)];
  shown.push(element("div", { className: "prose" }, ...said));
  if (conflicts.length) {
    shown.push(element("section", { className: "conflicts" },
      element("h3", {}, "The documents disagree"), ...conflicts.flatMap((conflict) => conflictOf(conflict, open))));
  }
  if (citations.length) {
    shown.push(element("h3", {}, citations.length === 1 ? "Source" : "Sources"),
      element("ol", { className: "sources" }, ...citations.map((citation, at) => source(citation, at, answer, open))));
  }
  return [...shown, meta(answer, seconds)];
}
