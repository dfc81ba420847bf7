// Quality reports: asking for one, their history, the figures of one here and the whole of it in a page of its own.

import { announce, button, byId, coded, confirmed, counted, dated, doing, element, named, quiet, show } from "./dom.js";
import { addressOf, get, keyOf, post, save, send } from "./server.js";
import { may, session } from "./session.js";

const STATES = { queued: "Waiting", running: "Being made", done: "Done", failed: "Failed" };
const LOOK_MS = 2000;
const rows = new Map();
let visible = false;
let clock = null;

function words(name) {
  return name.replaceAll("_", " ").replace("@", " at ");
}

function figureRow([name, { value, low, high, count, failed }]) {
  return element("tr", {}, element("th", { scope: "row" }, words(name)), element("td", {}, value.toFixed(2)),
    element("td", { className: "quiet" }, `${low.toFixed(2)} to ${high.toFixed(2)}`),
    element("td", { className: "quiet" }, failed ? `${count}, ${failed} failed` : String(count)));
}

function tableOf([title, named]) {
  const columns = ["Score", "Value", "95 % interval", "Questions"];
  const table = element("table", { className: "figures" },
    element("caption", {}, title),
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...Object.entries(named).map(figureRow)));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": title }, table);
}

function figures({ verdict, headlines, judge, causes, other_sources: others }) {
  const sources = Object.entries(others).map(([source, named]) => [`Questions of the source “${source}”`, named]);
  const tables = [["Golden questions", headlines], ...sources].filter(([, named]) => Object.keys(named).length);
  const why = Object.entries(causes).filter(([, count]) => count).map(([cause, count]) => `${words(cause)}: ${count}`);
  return [
    element("p", { className: verdict.passed ? "good" : "bad" }, verdict.passed
      ? `Passed ${counted(verdict.gates.length, "gate")}.` : "Did not pass."),
    verdict.reasons.length > 0 && element("ul", {}, ...verdict.reasons.map((reason) => element("li", {}, reason))),
    ...(tables.length ? tables.map(tableOf) : [quiet("There was no question with a known answer.")]),
    why.length > 0 && quiet(`Where it goes wrong: ${why.join(", ")}.`),
    quiet(`Judged by ${judge.name}.`),
  ].filter(Boolean);
}

function detailsOf(report) {
  const body = element("div", {}, quiet("Loading…"));
  const details = element("details", {}, element("summary", {}, "Scores"), body);
  details.addEventListener("toggle", async () => {
    if (!details.open || details.dataset.loaded) return;
    details.dataset.loaded = "yes";
    try {
      body.replaceChildren(...figures((await get(addressOf("reports", report.id))).report));
    } catch (error) {
      delete details.dataset.loaded;
      body.replaceChildren(element("p", { className: "bad" }, error.message));
    }
  });
  return details;
}

// A link can not carry a key: where one is needed the page is saved instead of opened.
function wholeOf({ id }) {
  const address = `${addressOf("reports", id)}?format=html`;
  if (!keyOf.get()) return element("a", { className: "button plain", href: address, target: "_blank", rel: "noopener" }, "Open the report");
  return button("Save the report", ({ currentTarget }) => doing(currentTarget, () => save(address, `report-${id}.html`)));
}

function itemOf(report) {
  const where = report.collections.length ? report.collections.join(", ") : "all collections";
  const done = report.state === "done";
  return element("li", { className: "card" },
    element("div", { className: "headline" },
      element("h3", {}, dated(report.created_at), report.label && " ", report.label && named(report.label, "quiet")),
      element("span", { className: `state ${report.state}` }, STATES[report.state])),
    quiet(report.state === "queued" ? where : `${where} · ${counted(report.answered, "question")}`),
    report.error && element("p", { className: "bad" }, ...coded(report.error)),
    done && detailsOf(report),
    element("div", { className: "actions" }, done && wholeOf(report),
      may("writer") && button("Remove", ({ currentTarget }) => doing(currentTarget, () => remove(report)), {
        "aria-label": `Remove the report of ${dated(report.created_at)}`,
      })));
}

async function remove({ id, created_at: created }) {
  const chosen = await confirmed({
    title: [`Remove the report of ${dated(created)}?`], text: "Its answers stay in the log.", action: "Remove",
  });
  if (!chosen) return;
  await send(addressOf("reports", id), { method: "DELETE" });
  announce("The report is removed.");
  await look();
  byId("reports-title").focus();
}

async function look() {
  clearTimeout(clock);
  if (!visible) return;
  const { reports } = await get("/v1/reports?limit=50");
  for (const id of [...rows.keys()]) if (!reports.some((one) => one.id === id)) rows.delete(id);
  const items = reports.map((report) => {
    const now = JSON.stringify(report);
    if (rows.get(report.id)?.now !== now) rows.set(report.id, { now, item: itemOf(report) });
    return rows.get(report.id).item;
  });
  if (items.some((item, at) => byId("reports").children[at] !== item) || byId("reports").childElementCount !== items.length) {
    byId("reports").replaceChildren(...items);
  }
  show(byId("no-reports"), !reports.length);
  if (reports.some(({ state }) => state === "queued" || state === "running")) clock = setTimeout(() => look().catch(() => {}), LOOK_MS);
}

async function run(event) {
  event.preventDefault();
  await doing(byId("run"), async () => {
    const everywhere = byId("everywhere").checked || !session.chosen;
    const label = byId("label").value.trim();
    await post("/v1/reports", { collections: everywhere ? [] : [session.chosen], ...(label && { label }) });
    byId("label").value = "";
    announce("The report is asked for.");
    await look();
  });
}

export function shown(isShown) {
  visible = isShown;
  clearTimeout(clock);
  return isShown ? look() : undefined;
}

export function begin() {
  byId("report-form").addEventListener("submit", run);
  session.addEventListener("changed", () => show(byId("report-form"), may("writer")));
}
