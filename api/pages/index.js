// Asks a question and shows the answer with its citations. What comes from documents is only ever set as text.
"use strict";

const byId = (id) => document.getElementById(id);

function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

async function fetchJson(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server can not be reached; is it still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error?.message ?? `The server answered with status ${response.status}.`);
  return body;
}

function show(id, visible) {
  byId(id).hidden = !visible;
}

function fail(error) {
  byId("error").textContent = error.message;
  show("error", true);
}

async function loadCollections() {
  const { collections } = await fetchJson("/v1/collections");
  for (const { name, documents } of collections) {
    const title = documents === 1 ? "1 document" : `${documents} documents`;
    byId("collection").append(element("option", name, { value: name, title }));
  }
  show("empty", collections.length === 0);
  show("form", collections.length > 0);
}

function place(citation) {
  const parts = [`version ${citation.version}`];
  if (citation.page !== null) parts.push(`page ${citation.page}`);
  if (citation.section.length) parts.push(citation.section.join(" › "));
  return parts.join(", ");
}

function source(citation, position) {
  const item = element("li", "", { id: `source-${position + 1}` });
  const head = element("div", `${position + 1}. `);
  const address = `/v1/documents/${encodeURIComponent(citation.document_id)}/content`;
  head.append(element("a", citation.document, { href: address }), element("span", ` ${place(citation)}`, { className: "quiet" }));
  item.append(head, element("blockquote", citation.quote));
  return item;
}

// Each sentence is shown with links to its own quotes, in place of the text's markers, which number passages.
function sentences(answer) {
  if (!answer.claims.length) return [element("span", answer.text)];
  return answer.claims.flatMap((claim) => {
    const links = claim.citations.map((at) => element("a", `[${at + 1}]`, { href: `#source-${at + 1}` }));
    return [element("span", claim.text), ...links, element("span", /[|\n]/.test(claim.text) ? "\n" : " ")];
  });
}

function showAnswer(answer, seconds) {
  byId("answer").replaceChildren(...sentences(answer));
  byId("sources").replaceChildren(...answer.citations.map(source));
  byId("notice").textContent = answer.notice ?? "";
  byId("meta").textContent = `Written by ${answer.generator} in ${seconds.toFixed(2)} s`;
  show("notice", answer.notice !== null);
  show("cited", answer.citations.length > 0);
  show("result", true);
}

async function ask(event) {
  event.preventDefault();
  const button = byId("send");
  const started = performance.now();
  button.disabled = true;
  button.textContent = "Asking…";
  show("error", false);
  show("result", false);
  try {
    const body = JSON.stringify({ question: byId("question").value, collections: [byId("collection").value] });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetchJson("/v1/ask", { method: "POST", headers, body });
    showAnswer(answer, (performance.now() - started) / 1000);
  } catch (error) {
    fail(error);
  } finally {
    button.disabled = false;
    button.textContent = "Ask";
  }
}

byId("form").addEventListener("submit", ask);
loadCollections().catch(fail);
