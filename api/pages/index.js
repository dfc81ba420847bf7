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

// Offsets count characters as the server does, whatever their size in JavaScript. The words that answer are bold.
function sentence(claim, short) {
  const letters = Array.from(claim.text);
  const [first, last] = short ? [short.start - claim.start, short.end - claim.start] : [0, 0];
  const said = element("span", claim.text);
  if (first >= 0 && first < last && letters.slice(first, last).join("") === short.text) {
    const [before, after] = [letters.slice(0, first), letters.slice(last)].map((part) => part.join(""));
    said.replaceChildren(before, element("strong", short.text), after);
  }
  return said;
}

// Each sentence is shown with links to its own quotes, in place of the text's markers, which number passages.
function sentences(answer) {
  if (!answer.claims.length) return [element("span", answer.text)];
  return answer.claims.flatMap((claim) => {
    const links = claim.citations.map((at) => element("a", `[${at + 1}]`, { href: `#source-${at + 1}` }));
    const lacking = claim.checkable && !claim.supported;
    const doubt = lacking ? [element("small", " (the documents do not support this)", { className: "bad" })] : [];
    const end = element("span", /[|\n]/.test(claim.text) ? "\n" : " ");
    return [sentence(claim, answer.short_answer), ...links, ...doubt, end];
  });
}

function statement({ citation, date }) {
  const item = element("li", `${citation.document}, ${place(citation)}, ${date.slice(0, 10)}`);
  item.append(element("blockquote", citation.quote));
  return item;
}

function showAnswer(answer, seconds) {
  const statements = answer.conflicts.flatMap((conflict) => conflict.statements);
  byId("asked").textContent = answer.question;
  byId("answer").replaceChildren(...sentences(answer));
  byId("sources").replaceChildren(...answer.citations.map(source));
  byId("conflicts").replaceChildren(...statements.map(statement));
  byId("understood").textContent = `Understood as: ${answer.queries[0]?.text}`;
  byId("notice").textContent = answer.notice ?? "";
  byId("meta").textContent = `Written by ${answer.generator} in ${seconds.toFixed(2)} s`;
  show("understood", answer.queries[0]?.role === "standalone");
  show("notice", answer.notice !== null);
  show("conflicting", statements.length > 0);
  show("cited", answer.citations.length > 0);
  show("result", true);
}

// The conversation lives in the page alone: its answers, oldest first, the last of which is shown.
let conversation = [];

function said() {
  const messages = conversation.flatMap((answer) => [
    { role: "user", content: answer.question },
    { role: "assistant", content: answer.text },
  ]);
  return messages.slice(-20);
}

function showConversation() {
  const earlier = conversation.slice(0, -1).reverse().map((answer) => {
    const turn = element("details", "", { className: "card" });
    const documents = new Set(answer.citations.map((citation) => citation.document));
    const told = answer.claims.map((claim) => claim.text).join("\n") || answer.text;
    turn.append(element("summary", answer.question), element("p", told, { className: "told" }));
    if (documents.size) turn.append(element("p", `From ${[...documents].join(", ")}`, { className: "quiet" }));
    return turn;
  });
  byId("earlier").replaceChildren(...earlier);
  show("before", earlier.length > 0);
  show("anew", conversation.length > 0);
  show("following", conversation.length > 0);
}

function beginAnew() {
  conversation = [];
  showConversation();
  show("result", false);
  show("error", false);
  byId("question").focus();
}

async function ask(event) {
  event.preventDefault();
  const button = byId("send");
  const question = byId("question");
  const started = performance.now();
  button.disabled = true;
  button.textContent = "Asking…";
  show("error", false);
  show("result", false);
  try {
    const asked = { question: question.value, collections: [byId("collection").value], history: said() };
    const headers = { "Content-Type": "application/json" };
    const answer = await fetchJson("/v1/ask", { method: "POST", headers, body: JSON.stringify(asked) });
    conversation.push(answer);
    showAnswer(answer, (performance.now() - started) / 1000);
    showConversation();
    question.value = "";
    question.focus();
  } catch (error) {
    fail(error);
  } finally {
    button.disabled = false;
    button.textContent = "Ask";
  }
}

byId("anew").addEventListener("click", beginAnew);
byId("form").addEventListener("submit", ask);
loadCollections().catch(fail);
