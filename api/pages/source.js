// The source of a citation beside the answer, with the quote marked: a page of a PDF as a picture, all else as text.

import { placeOf } from "./answer.js";
import { announce, button, byId, dated, doing, element, named, percent, quiet, show, sized } from "./dom.js";
import { addressOf, get, save, send } from "./server.js";

// Characters of text around a quote.
const AROUND = 1500;
const wide = matchMedia("(min-width: 62rem)");
let pressed = null;
let turn = 0;
let picture = null;

export function openSource(citation, opener) {
  const before = opener?.getBoundingClientRect().top;
  close(false);
  pressed = opener;
  opener?.setAttribute("aria-expanded", "true");
  byId("source-name").replaceChildren(named(citation.document));
  byId("source-body").replaceChildren(quiet("Loading…"));
  byId("source-place").textContent = "";
  open();
  if (opener) window.scrollBy({ top: opener.getBoundingClientRect().top - before, behavior: "instant" }); // the text is set anew beside it
  const mine = ++turn;
  fill(citation, () => mine === turn).catch((error) => {
    if (mine === turn) byId("source-body").replaceChildren(element("p", { className: "trouble", role: "alert" }, error.message));
  });
}

function open() {
  const dialog = byId("source");
  if (wide.matches) dialog.show();
  else dialog.showModal();
  document.body.classList.toggle("beside", true);
  byId("source-name").focus({ preventScroll: true });
}

export function close(back = true) {
  if (!byId("source").open) return;
  const before = pressed?.getBoundingClientRect().top;
  turn += 1;
  byId("source").close();
  document.body.classList.remove("beside");
  forgetPicture();
  pressed?.setAttribute("aria-expanded", "false");
  if (back && pressed?.isConnected) {
    window.scrollBy({ top: pressed.getBoundingClientRect().top - before, behavior: "instant" });
    pressed.focus({ preventScroll: true });
  }
  pressed = null;
}

function forgetPicture() {
  if (picture) URL.revokeObjectURL(picture);
  picture = null;
}

// A document as such is shown from its beginning; a citation at its quote, where its version is still the one searched.
async function fill(citation, isCurrent) {
  const document = await get(addressOf("documents", citation.document_id));
  if (!isCurrent()) return;
  const { live } = document;
  const quotes = citation.quote !== undefined;
  byId("source-place").textContent = quotes ? placeOf(citation) : "";
  const parts = [];
  if (quotes && citation.score !== null) parts.push(supported(citation.score));
  const original = button("Save the original", ({ currentTarget }) => doing(currentTarget, () =>
    save(addressOf("documents", document.id, "content"), document.name.split("/").pop())));
  const about = quiet(facts(document, live));
  if (!live) {
    byId("source-body").replaceChildren(...parts, quiet("Nothing of this document is searched at present."), about, original);
    return;
  }
  const same = !quotes || live.id === citation.version_id;
  if (!same) parts.push(...changed(citation));
  const view = element("div", { className: "view" });
  const shown = { document, live, citation: quotes && same ? citation : null, view, isCurrent };
  const isPdf = live.media_type === "application/pdf" && live.pages > 0;
  const tabs = isPdf ? choices(shown) : null;
  byId("source-body").replaceChildren(...parts, ...(tabs ? [tabs] : []), view, about, original);
  await (isPdf && (citation.page || !quotes) ? showPage(shown, (same && citation.page) || 1) : showText(shown));
}

function supported(score) {
  return element("p", { className: "quiet" }, `The quote supports ${percent(score)} of its sentence.`);
}

function changed(citation) {
  return [
    element("p", { className: "notice" }, "The document has changed since this answer. These were the words; below is what it says now."),
    element("blockquote", { dir: "auto" }, citation.quote),
  ];
}

function facts({ created_at: created }, live) {
  const parts = [];
  if (live?.title) parts.push(live.title);
  if (live?.media_type) parts.push(live.media_type);
  if (live) parts.push(sized(live.size));
  return [...parts, `added ${dated(created)}`].join(" · ");
}

function choices(shown) {
  const choose = (act) => ({ currentTarget }) => {
    for (const other of currentTarget.parentElement.children) other.setAttribute("aria-pressed", String(other === currentTarget));
    act().catch((error) => shown.view.replaceChildren(element("p", { className: "trouble", role: "alert" }, error.message)));
  };
  return element("div", { className: "choices", role: "group", "aria-label": "How to show it" },
    button("Page", choose(() => showPage(shown, shown.citation?.page ?? 1)), { "aria-pressed": "true" }),
    button("Text", choose(() => showText(shown)), { "aria-pressed": "false" }));
}

// -- pages -------------------------------------------------------------------------------------------------------

async function showPage(shown, page) {
  const { document, live, citation, view, isCurrent } = shown;
  const marked = citation && citation.page === page;
  const span = marked ? `?start=${citation.source_start}&end=${citation.source_end}` : "";
  const response = await send(`${addressOf("documents", document.id, "pages", page)}${span}`);
  const marks = JSON.parse(response.headers.get("Citewell-Marks") ?? "[]");
  const blob = await response.blob();
  if (!isCurrent()) return;
  forgetPicture();
  picture = URL.createObjectURL(blob);
  const image = element("img", { src: picture, alt: `Page ${page} of ${document.name}${marks.length ? ", with the quote marked" : ""}` });
  const frame = element("div", { className: "page", tabIndex: 0, role: "region", "aria-label": `Page ${page}` }, image);
  const turnTo = (next) => () => showPage(shown, next).catch((error) =>
    view.replaceChildren(element("p", { className: "trouble", role: "alert" }, error.message)));
  const steps = element("div", { className: "steps" },
    button("‹", turnTo(page - 1), { disabled: page <= 1, "aria-label": "Page before" }),
    element("span", {}, `Page ${page} of ${live.pages}`),
    button("›", turnTo(page + 1), { disabled: page >= live.pages, "aria-label": "Next page" }));
  const words = citation && marked
    ? [element("blockquote", { className: "unmarked", dir: "auto" }, citation.quote)] : [];
  const lost = marked && !marks.length ? [quiet("These words were not found among the letters of the page; it may be a scan.")] : [];
  view.replaceChildren(...words, ...lost, steps, frame);
  await image.decode();
  if (marks.length) {
    const [left, top] = marks[0];
    frame.scrollTo(left * image.clientWidth - 16, top * image.clientHeight - frame.clientHeight / 3);
  }
  announce(marks.length ? `Page ${page}, the quote is marked.` : `Page ${page}.`);
}

// -- text --------------------------------------------------------------------------------------------------------

async function part(document, start, length) {
  return get(`${addressOf("documents", document.id, "text")}?start=${start}&length=${length}`);
}

// Offsets count characters as the server does, whatever their size in JavaScript.
async function showText({ document, citation, view, isCurrent }) {
  const first = citation ? Math.max(0, citation.source_start - AROUND) : 0;
  const most = (citation ? citation.source_end - first : AROUND) + AROUND;
  const found = await part(document, first, most);
  if (!isCurrent()) return;
  const letters = Array.from(found.text);
  const cut = (from, to) => letters.slice(from - first, to - first).join("");
  const pieces = citation
    ? [cut(first, citation.source_start), element("mark", {}, cut(citation.source_start, citation.source_end)), cut(citation.source_end, found.end)]
    : [found.text];
  const text = element("div", { className: "text", dir: "auto", tabIndex: 0, role: "region", "aria-label": "Text of the document" }, ...pieces);
  const before = more("Show what stands before", found.start > 0, async () => {
    const start = Math.max(0, found.start - 4 * AROUND);
    text.prepend((await part(document, start, found.start - start)).text);
    found.start = start;
    return start > 0;
  });
  const after = more("Show what follows", found.end < found.length, async () => {
    const next = await part(document, found.end, 4 * AROUND);
    text.append(next.text);
    found.end = next.end;
    return next.end < next.length;
  });
  view.replaceChildren(before, text, after);
  const mark = text.querySelector("mark");
  if (mark) text.scrollTop = Math.max(0, mark.offsetTop - text.offsetTop - text.clientHeight / 3);
  announce(citation ? "The text, with the quote marked." : "The text.");
}

function more(label, needed, act) {
  const made = button(label, async () => {
    made.disabled = true;
    try {
      show(made, await act());
    } finally {
      made.disabled = false;
    }
  });
  show(made, needed);
  return made;
}

export function begin() {
  byId("source-close").addEventListener("click", () => close());
  byId("source").addEventListener("cancel", (event) => {
    event.preventDefault();
    close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && byId("source").open && !document.querySelector("dialog:modal")) close();
  });
  wide.addEventListener("change", () => close(false));
}
