// Puts the views together: which one is shown, by the end of the address, and what each of them begins with.

import * as ask from "./ask.js";
import { byId, complain, show } from "./dom.js";
import * as documents from "./documents.js";
import * as keys from "./keys.js";
import * as reports from "./reports.js";
import * as session from "./session.js";
import * as source from "./source.js";
import * as upload from "./upload.js";

const VIEWS = { ask: { title: "Ask" }, documents: { title: "Documents", ...documents }, reports: { title: "Reports", ...reports }, keys: { title: "Keys", ...keys } };

async function turn() {
  const name = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "ask";
  source.close(false);
  complain(null);
  document.title = `${VIEWS[name].title} · Citewell`;
  for (const view of Object.keys(VIEWS)) show(byId(`view-${view}`), view === name);
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  await Promise.all(Object.entries(VIEWS).map(([view, { shown }]) => shown?.(view === name)));
}

function roles() {
  show(byId("keys-link"), session.may("admin"));
  show(byId("reports-link"), session.may("reader"));
}

async function begin() {
  session.session.addEventListener("changed", roles);
  for (const part of [session, source, ask, documents, upload, reports, keys]) part.begin();
  for (const no of document.querySelectorAll("dialog [data-close]")) {
    no.addEventListener("click", () => no.closest("dialog").close(no.dataset.close));
  }
  for (const form of document.querySelectorAll("dialog form")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.closest("dialog").close("yes");
    });
  }
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("main").focus();
  });
  window.addEventListener("hashchange", () => turn().catch(complain));
  window.addEventListener("offline", () => complain(new Error("This device is offline.")));
  window.addEventListener("online", () => complain(null));
  await session.refresh();
  await turn();
}

begin().catch(complain);
