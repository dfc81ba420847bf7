// The documents of a collection: what state each is in, why one could not be read, trying again, deleting.

import { announce, button, byId, confirmed, counted, doing, element, named, show, sized } from "./dom.js";
import { addressOf, get, post, save, send } from "./server.js";
import { choose, may, refresh, session } from "./session.js";
import { openSource } from "./source.js";

const STATES = { queued: "Waiting", processing: "Being read", ready: "Ready", failed: "Failed", retired: "Replaced" };
const LOOK_MS = 1500;
const rows = new Map();
let visible = false;
let next = null;
let clock = null;
let asked = 0;

function isGoingOn({ state }) {
  return state === "queued" || state === "processing";
}

function stateOf(document) {
  const words = document.state === "processing"
    ? `${STATES.processing}, ${Math.round(100 * document.progress)} %` : STATES[document.state];
  const older = document.state === "failed" && document.live_version
    ? element("span", { className: "quiet" }, " the version before is still searched") : null;
  return element("td", { className: "state-cell" }, element("span", { className: `state ${document.state}` }, words), older);
}

function actionsOf(document) {
  const { id, name } = document;
  const act = (label, what, work) => button(label, ({ currentTarget }) => doing(currentTarget, work), {
    "aria-label": `${label} ${name}`, "data-act": what,
  });
  return element("td", {}, element("div", { className: "actions" },
    document.state === "failed" && may("writer") && act("Retry", "retry", () => retry(document)),
    act("Original", "original", () => save(addressOf("documents", id, "content"), name.split("/").pop())),
    may("writer") && act("Delete", "delete", () => remove(document))));
}

function rowOf(document) {
  const open = button(named(document.name), ({ currentTarget }) =>
    openSource({ document: document.name, document_id: document.id }, currentTarget), { className: "link", "data-act": "open" });
  const { newest } = document;
  const size = [newest.pages ? counted(newest.pages, "page") : null, counted(newest.passages, "passage"), sized(newest.size)];
  return element("tr", {},
    element("th", { scope: "row" }, open,
      document.error && element("p", { className: "bad" }, document.error.message)),
    stateOf(document),
    element("td", { className: "quiet" }, size.filter(Boolean).join(" · ")),
    actionsOf(document));
}

// Puts a document into the table; one that has not changed is left alone, and a control that has the focus keeps it.
function put(document) {
  const now = JSON.stringify([document, may("writer")]);
  const before = rows.get(document.id);
  if (before?.now === now) {
    byId("rows").append(before.row);
    return;
  }
  const focused = before?.row.contains(window.document.activeElement) ? window.document.activeElement.dataset.act : null;
  const row = rowOf(document);
  before?.row.remove();
  byId("rows").append(row);
  rows.set(document.id, { row, now, going: isGoingOn(document) });
  if (focused) (row.querySelector(`[data-act="${focused}"]`) ?? row.querySelector("button")).focus();
}

function keepFocus(work) {
  const focused = document.activeElement;
  work();
  if (focused !== document.activeElement && focused?.isConnected) focused.focus();
}

async function page(after, limit) {
  const state = byId("filter").value;
  const query = new URLSearchParams({ limit, after, ...(state && { state }) });
  return get(`${addressOf("collections", session.chosen, "documents")}?${query}`);
}

// Loads the documents that are shown anew, as many as there were.
export async function look() {
  clearTimeout(clock);
  const mine = ++asked;
  show(byId("no-collection"), !session.chosen);
  show(byId("has-collection"), Boolean(session.chosen));
  if (!session.chosen || !visible) return;
  const found = await page("", Math.min(1000, Math.max(100, rows.size)));
  if (mine !== asked) return;
  const kept = new Set(found.documents.map(({ id }) => id));
  keepFocus(() => {
    for (const [id, { row }] of rows) if (!kept.has(id)) row.remove();
    for (const id of [...rows.keys()]) if (!kept.has(id)) rows.delete(id);
    found.documents.forEach(put);
  });
  next = found.next;
  show(byId("more"), Boolean(next));
  show(byId("table"), rows.size > 0);
  show(byId("none"), rows.size === 0);
  byId("none").textContent = byId("filter").value ? "No document is in this state." : "There are no documents here yet.";
  if ([...rows.values()].some(({ going }) => going)) clock = setTimeout(() => look().catch(() => {}), LOOK_MS);
}

async function showMore() {
  const found = await page(next, 100);
  found.documents.forEach(put);
  next = found.next;
  show(byId("more"), Boolean(next));
}

async function retry(document) {
  await send(addressOf("documents", document.id, "retry"), { method: "POST" });
  announce(`${document.name} is tried again.`);
  await look();
}

async function remove(document) {
  const chosen = await confirmed({
    title: ["Delete ", named(document.name), "?"],
    text: "From now on no search, answer or citation can show it.",
    action: "Delete",
    options: [{ name: "purge", label: "Remove its text, vectors and original from the disk as well" }],
  });
  if (!chosen) return;
  await send(`${addressOf("documents", document.id)}${chosen.purge ? "?purge=true" : ""}`, { method: "DELETE" });
  announce(`${document.name} is deleted.`);
  await refresh();
  await look();
  byId("documents-title").focus();
}

async function create(event) {
  event.preventDefault();
  const name = byId("new-name").value.trim();
  await doing(byId("create"), async () => {
    await post("/v1/collections", { name });
    byId("new-name").value = "";
    byId("new-collection").open = false;
    await refresh();
    choose(name);
    announce(`The collection ${name} is there.`);
  });
}

function forget() {
  for (const { row } of rows.values()) row.remove();
  rows.clear();
}

export function shown(isShown) {
  visible = isShown;
  clearTimeout(clock);
  return isShown ? look() : undefined;
}

export function begin() {
  let before = null;
  session.addEventListener("changed", () => {
    if (before !== session.chosen) forget();
    before = session.chosen;
    show(byId("uploading"), may("writer"));
    show(byId("new-collection"), may("writer"));
    look().catch(() => {}); // whoever asked for the change hears of it
  });
  byId("filter").addEventListener("change", ({ target }) => {
    forget();
    void doing(target, look);
  });
  byId("more").addEventListener("click", ({ currentTarget }) => doing(currentTarget, showMore));
  byId("create-form").addEventListener("submit", create);
}
