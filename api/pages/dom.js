// Elements, and the words for sizes, dates and counts. What comes from documents is only ever set as text.

export const byId = (id) => document.getElementById(id);

// Makes an element. Names with a dash, `role` and `for` are attributes; `on` holds listeners; children are text or nodes.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "on") Object.entries(value).forEach(([event, act]) => made.addEventListener(event, act));
    else if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function show(node, visible) {
  node.hidden = !visible;
}

// Characters that turn the reading direction around, or have no shape at all, are shown as what they are: strange.
const STRANGE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

// Shows what stands between back-quotes in a sentence of ours as code.
export function coded(text) {
  return text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

// A name that somebody has chosen, apart from the text around it.
export function named(name, className = "name") {
  return element("bdi", { className }, name.replace(STRANGE, "\ufffd"));
}

export function quiet(...children) {
  return element("p", { className: "quiet" }, ...children);
}

export function button(label, act, properties = {}) {
  return element("button", { type: "button", className: "plain", on: { click: act }, ...properties }, label);
}

// Says something to those who do not see the page; the same words twice are said twice.
let odd = false;
export function announce(words) {
  odd = !odd;
  byId("status").textContent = words + (odd ? "" : "\u00a0");
}

// Shows what went wrong above the view, until the next thing goes well.
export function complain(error) {
  byId("trouble").textContent = error ? error.message : "";
  show(byId("trouble"), Boolean(error));
}

// Runs what a control asks for; the control waits meanwhile, and what goes wrong is said.
export async function doing(control, work) {
  control.disabled = true;
  try {
    complain(null);
    await work();
  } catch (error) {
    complain(error);
  } finally {
    control.disabled = false;
  }
}

// Asks before something is done that can not be undone; resolves to the form's values, or to null.
export function confirmed({ title, text, action, options = [] }) {
  const dialog = byId("confirm");
  const boxes = options.map(({ name, label }) =>
    element("label", { className: "check" }, element("input", { type: "checkbox", name }), ` ${label}`));
  byId("confirm-title").replaceChildren(...title);
  byId("confirm-text").textContent = text;
  byId("confirm-options").replaceChildren(...boxes);
  byId("confirm-yes").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  byId("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const values = Object.fromEntries(boxes.map(({ firstChild }) => [firstChild.name, firstChild.checked]));
      resolve(dialog.returnValue === "yes" ? values : null);
    }, { once: true });
  });
}

export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

export function sized(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  return `${(bytes / 1000 ** power).toLocaleString("en", { maximumFractionDigits: power ? 1 : 0 })} ${units[power]}`;
}

export function dated(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function percent(share) {
  return `${Math.round(100 * share)} %`;
}
