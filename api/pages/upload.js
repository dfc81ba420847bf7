// Uploads by drag and drop or by choice: each file on its own, all of one drop as a batch that is followed to its end.

import { announce, button, byId, complain, counted, doing, element, named } from "./dom.js";
import { look } from "./documents.js";
import { addressOf, eventsOf, post, save, send, upload } from "./server.js";
import { refresh, session } from "./session.js";

// Files that are sent at a time, and how long to wait before a batch is followed again.
const AT_ONCE = 3;
const AGAIN_MS = 1000;
const SHARE = { sending: [0, 0.4], reading: [0.4, 1] };

function lineOf(file, name) {
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
  const state = element("span", { className: "quiet" }, "Waiting to be sent");
  const node = element("li", { className: "upload" }, element("div", { className: "upload-head" }, named(name), state), bar);
  return { file, name, node, bar, state, kept: name, over: false, failed: false };
}

function tell(line, words, stage, share) {
  line.state.textContent = words;
  const [from, to] = SHARE[stage];
  line.bar.value = from + share * (to - from);
}

function end(line, words) {
  Object.assign(line, { over: true, failed: false });
  line.node.classList.add("done");
  line.state.textContent = words;
  line.bar.remove();
}

function fail(line, message, again) {
  Object.assign(line, { over: true, failed: true });
  line.node.classList.add("failed");
  line.state.textContent = "Failed";
  line.bar.remove();
  const retry = button("Retry", ({ currentTarget }) => doing(currentTarget, async () => {
    line.node.classList.remove("failed");
    line.node.querySelector(".why").remove();
    line.node.append(line.bar);
    Object.assign(line, { over: false, failed: false });
    await again(line);
  }), { "aria-label": `Retry ${line.name}` });
  line.node.append(element("div", { className: "why" }, element("p", { className: "bad" }, message), retry));
}

// A batch as a card: its files, how many have ended, and the report of the server.
function batchOf(names, id, collection) {
  const lines = names.map(([file, name]) => lineOf(file, name));
  const title = element("h3", {}, "");
  const report = button("Report as CSV", () =>
    doing(report, () => save(`${addressOf("batches", id, "report")}?format=csv`, `batch-${id}.csv`)));
  const close = button("Close", () => card.remove());
  const card = element("section", { className: "card batch", "aria-label": "Upload" },
    element("div", { className: "headline" }, title, element("div", { className: "actions" }, report, close)),
    element("ul", { className: "uploads" }, ...lines.map(({ node }) => node)));
  byId("batches").prepend(card);
  return { id, collection, lines, title, following: false, told: false };
}

function sum(batch) {
  const { lines } = batch;
  const over = lines.filter((line) => line.over);
  const failed = lines.filter((line) => line.failed).length;
  const parts = [`${over.length} of ${counted(lines.length, "file")} done`];
  if (failed) parts.push(`${failed} failed`);
  batch.title.textContent = parts.join(", ");
  if (over.length === lines.length && !batch.told) announce(`Upload: ${parts.join(", ")}.`);
  batch.told = over.length === lines.length;
}

async function sendOne(batch, line) {
  const path = `${addressOf("collections", batch.collection, "documents")}/${line.name.split("/").map(encodeURIComponent).join("/")}`;
  try {
    tell(line, "Sending", "sending", 0);
    const reply = await upload(`${path}?batch=${batch.id}`, line.file, (share) =>
      tell(line, `Sending, ${Math.round(100 * share)} %`, "sending", share));
    const [taken] = reply.documents;
    line.kept = taken.name;
    line.document = taken.id;
    if (taken.outcome === "unchanged" && taken.state === "ready") end(line, "Known already");
    else tell(line, "Waiting to be read", "reading", 0);
    void follow(batch);
  } catch (error) {
    fail(line, error.message, (again) => sendOne(batch, again));
  }
  sum(batch);
}

function isOpen(line) {
  return line.document && !line.over;
}

function lineFor(batch, name) {
  return batch.lines.find((line) => isOpen(line) && line.kept === name);
}

function hear(batch, { name, data }) {
  if (name === "progress") {
    for (const { name: reading, progress } of data.in_hand) {
      const line = lineFor(batch, reading);
      if (line) tell(line, `Being read, ${Math.round(100 * progress)} %`, "reading", progress);
    }
  }
  if (name === "document") {
    const line = lineFor(batch, data.name);
    if (!line) return;
    if (data.state === "failed") fail(line, data.error.message, () => readAgain(batch, line));
    else end(line, data.passages === undefined ? "Ready" : `Ready, ${counted(data.passages, "passage")}`);
    sum(batch);
  }
}

async function readAgain(batch, line) {
  await send(addressOf("documents", line.document, "retry"), { method: "POST" });
  tell(line, "Waiting to be read", "reading", 0);
  sum(batch);
  await follow(batch);
}

// Follows a batch until all files that were taken have ended; where the connection breaks off, from the beginning.
async function follow(batch) {
  if (batch.following) return;
  batch.following = true;
  try {
    while (batch.lines.some(isOpen)) {
      const response = await send(addressOf("batches", batch.id, "events"));
      for await (const event of eventsOf(response)) hear(batch, event);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  } catch (error) {
    complain(error);
    const again = button("Follow the upload again", () => {
      complain(null);
      void follow(batch);
    });
    byId("trouble").append(" ", again);
  } finally {
    batch.following = false;
  }
  await Promise.all([refresh(), look()]).catch(() => {}); // what is wrong was said
}

async function take(files) {
  const collection = session.chosen;
  if (!files.length || !collection) return;
  complain(null);
  const { id } = await post(addressOf("collections", collection, "batches"), {});
  const batch = batchOf(files, id, collection);
  sum(batch);
  announce(`${counted(files.length, "file")} to upload.`);
  const waiting = [...batch.lines];
  const sender = async () => {
    for (let line = waiting.shift(); line; line = waiting.shift()) await sendOne(batch, line);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sender));
  await look();
}

// -- what was dropped, folders too -----------------------------------------------------------------------------------

function entriesOf(folder) {
  const reader = folder.createReader();
  const some = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const all = async (found = []) => {
    const more = await some();
    return more.length ? all([...found, ...more]) : found;
  };
  return all();
}

async function filesIn(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [[file, path + file.name]];
  }
  const inside = await entriesOf(entry);
  return (await Promise.all(inside.map((one) => filesIn(one, `${path}${entry.name}/`)))).flat();
}

async function dropped(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...data.files].map((file) => [file, file.name]);
  return (await Promise.all(entries.map((entry) => filesIn(entry)))).flat();
}

function start(files) {
  files.then(take).catch(complain);
}

export function begin() {
  const drop = byId("drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    start(dropped(event.dataTransfer));
  });
  for (const id of ["files", "folder"]) {
    byId(id).addEventListener("change", ({ target }) => {
      start(Promise.resolve([...target.files].map((file) => [file, file.webkitRelativePath || file.name])));
      target.value = "";
    });
  }
  // A file that misses the place would otherwise be opened in place of the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
}
