// Who uses the page and in which collection: what every view needs to know. Views listen for "changed".

import { byId, element, show } from "./dom.js";
import { get, keyOf, whenKeyIsWanted } from "./server.js";

const RANKS = ["reader", "writer", "admin"];

export const session = new EventTarget();
session.me = { open: true, key: null };
session.collections = [];
session.chosen = null;

// Says whether the key may do what needs a role; without any keys everybody may do everything.
export function may(role) {
  return session.me.open || RANKS.indexOf(session.me.key?.role) >= RANKS.indexOf(role);
}

export function isOpen() {
  return session.me.open;
}

function changed() {
  session.dispatchEvent(new Event("changed"));
}

export async function refresh() {
  session.me = await get("/v1/me");
  session.collections = (await get("/v1/collections")).collections;
  const names = session.collections.map(({ name }) => name);
  const before = session.chosen ?? sessionStorage.getItem("citewell.collection");
  session.chosen = names.includes(before) ? before : names[0] ?? null;
  const select = byId("collection");
  select.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === session.chosen }, name)));
  show(byId("choice"), names.length > 0);
  byId("role").textContent = session.me.key ? `${session.me.key.name} (${session.me.key.role})` : "";
  show(byId("leave"), Boolean(keyOf.get()));
  changed();
}

export function choose(name) {
  session.chosen = name;
  sessionStorage.setItem("citewell.collection", name);
  byId("collection").value = name;
  changed();
}

// One dialog for all requests that wait for a key.
let waiting = null;
function askForKey(sentence) {
  waiting ??= new Promise((resolve) => {
    const dialog = byId("unlock");
    byId("unlock-text").textContent = keyOf.get() ? sentence : "This server wants a key. It stays in this tab, until you close it.";
    byId("key").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      waiting = null;
      const key = byId("key").value.trim();
      byId("key").value = "";
      if (dialog.returnValue === "yes" && key) keyOf.set(key);
      resolve(dialog.returnValue === "yes" && Boolean(key));
    }, { once: true });
  });
  return waiting;
}

export function begin() {
  whenKeyIsWanted(askForKey);
  byId("collection").addEventListener("change", ({ target }) => choose(target.value));
  byId("leave").addEventListener("click", () => {
    keyOf.forget();
    location.reload();
  });
}
