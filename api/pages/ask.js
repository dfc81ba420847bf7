// Asks questions and shows the answers as they are written. The conversation lives in the page alone.

import { answered, sentences, unmarked } from "./answer.js";
import { announce, button, byId, complain, counted, element, show } from "./dom.js";
import { eventsOf, sendJson, Trouble } from "./server.js";
import { session } from "./session.js";
import { openSource } from "./source.js";

// Messages of the conversation that go with the next question.
const MOST_SAID = 20;
let conversation = [];
let running = null;

function said() {
  return conversation.flatMap(({ question, text }) => [
    { role: "user", content: question },
    { role: "assistant", content: text },
  ]).slice(-MOST_SAID);
}

// One question with what is known of its answer so far.
function turnOf(question) {
  const body = element("div", { className: "answer", "aria-busy": "true" });
  const state = element("p", { className: "quiet state" }, "Searching…");
  const article = element("article", { className: "turn" },
    element("h2", { className: "asked", dir: "auto" }, question), state, body);
  byId("turns").append(article);
  article.scrollIntoView({ block: "start", behavior: "instant" });
  return { question, article, body, state, text: "", claims: [], citations: [], began: performance.now() };
}

function tellState(turn, words) {
  turn.words = words;
  const seconds = Math.floor((performance.now() - turn.began) / 1000);
  turn.state.textContent = seconds > 2 ? `${words} ${seconds} s` : words;
}

// Shows what has come: sentences that are judged with their marks, behind them the text that is not yet.
function draw(turn) {
  turn.drawing = null;
  const judged = turn.claims.length ? turn.claims[turn.claims.length - 1].end : 0;
  const rest = unmarked(Array.from(turn.text).slice(judged).join("").replace(/^\s*\[\d[\d,\s]*\]/, ""));
  const draft = { text: turn.text, claims: turn.claims, citations: turn.citations, short_answer: null };
  turn.body.replaceChildren(element("div", { className: "prose writing" },
    ...sentences(draft, openSource), element("span", { className: "rest" }, rest)));
}

function drawSoon(turn) {
  turn.drawing ??= requestAnimationFrame(() => draw(turn));
}

function hear(turn, { name, data }) {
  if (name === "passages") {
    tellState(turn, `Reading ${counted(data.passages.length, "passage")}…`);
    return null;
  }
  if (name === "token") turn.text += data.text;
  if (name === "citation") turn.citations.push(data);
  if (name === "claim") turn.claims.push(data);
  if (name === "restart") {
    Object.assign(turn, { text: "", claims: [], citations: [] });
    announce(data.notice);
  }
  if (name === "error") throw new Trouble(data.error.message);
  if (name === "done") return data;
  if (name === "token" && turn.words !== "Writing…") tellState(turn, "Writing…");
  drawSoon(turn);
  return null;
}

function finish(turn, answer) {
  const seconds = (performance.now() - turn.began) / 1000;
  turn.body.replaceChildren(...answered(answer, seconds, openSource));
  conversation.push(answer);
  announce(answer.abstained ? "The documents do not say." : `The answer is complete, with ${counted(answer.citations.length, "source")}.`);
}

// What has come stays, marked as unfinished; the same question can be asked again.
function breakOff(turn, error) {
  const sentence = error.lost && turn.text ? "The connection to the server broke off before the answer was complete." : error.message;
  const again = button("Try again", () => {
    turn.article.remove();
    void ask(turn.question);
    byId("question").focus();
  });
  turn.article.classList.add("broken");
  turn.body.append(element("div", { className: "trouble", role: "alert" }, element("p", {}, sentence), again));
}

async function read(turn, signal) {
  const asked = { question: turn.question, collections: [session.chosen], history: said(), stream: true };
  const response = await sendJson("/v1/ask", asked, { signal });
  for await (const event of eventsOf(response)) {
    const answer = hear(turn, event);
    if (answer) return answer;
  }
  throw new Trouble("The answer ended before it was complete.", { lost: true });
}

function wait(waiting) {
  show(byId("send"), !waiting);
  show(byId("stop"), waiting);
  show(byId("anew"), !waiting && byId("turns").childElementCount > 0);
}

export async function ask(question) {
  if (running) return;
  running = new AbortController();
  const turn = turnOf(question);
  const clock = setInterval(() => tellState(turn, turn.words ?? "Searching…"), 1000);
  complain(null);
  show(byId("welcome"), false);
  wait(true);
  announce("Searching…");
  try {
    const answer = await read(turn, running.signal);
    cancelAnimationFrame(turn.drawing);
    finish(turn, answer);
  } catch (error) {
    if (turn.drawing) draw(turn);
    breakOff(turn, error.name === "AbortError" ? new Trouble("Stopped.") : error);
  } finally {
    clearInterval(clock);
    turn.state.remove();
    turn.body.setAttribute("aria-busy", "false");
    running = null;
    wait(false);
  }
}

function beginAnew() {
  conversation = [];
  byId("turns").replaceChildren();
  show(byId("welcome"), true);
  show(byId("anew"), false);
  byId("question").focus();
}

function welcome() {
  const here = session.collections.find(({ name }) => name === session.chosen);
  show(byId("composer"), Boolean(here));
  byId("welcome-text").textContent = !here
    ? "There is no collection yet. Add your first documents under Documents."
    : here.documents === 0
      ? `The collection ${here.name} has no documents that can be searched yet. Add some under Documents.`
      : `Ask about the ${counted(here.documents, "document")} in ${here.name}. Every sentence of an answer names the words it rests on.`;
}

function submit(event) {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (!question || running) return;
  byId("question").value = "";
  void ask(question);
}

export function begin() {
  byId("composer").addEventListener("submit", submit);
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  });
  byId("stop").addEventListener("click", () => {
    running?.abort();
    byId("question").focus();
  });
  byId("anew").addEventListener("click", beginAnew);
  session.addEventListener("changed", welcome);
}
