// The way to the server: requests with the key of this tab, errors in their one shape, streams of events, uploads.
// The key lives in the session storage: it ends with the tab, and no other page can read it.

const KEY = "citewell.key";

export const keyOf = {
  get: () => sessionStorage.getItem(KEY),
  set: (key) => sessionStorage.setItem(KEY, key),
  forget: () => sessionStorage.removeItem(KEY),
};

// What went wrong, in a sentence. `lost`: the server, or the way to it, is gone.
export class Trouble extends Error {
  constructor(message, { status = 0, lost = false } = {}) {
    super(message);
    this.status = status;
    this.lost = lost;
  }
}

// Who is asked for a key when the server wants one: gets its sentence, and resolves to whether there is a new one.
let keeper = async () => false;
export function whenKeyIsWanted(ask) {
  keeper = ask;
}

function withKey(headers) {
  const key = keyOf.get();
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
}

function told(status, body, after) {
  const message = body?.error?.message ?? `The server answered with status ${status}.`;
  return new Trouble(after ? `${message} (In ${after} s.)` : message, { status });
}

async function reach(path, { headers = {}, ...options }) {
  try {
    return await fetch(path, { ...options, headers: withKey(headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server can not be reached. Is it still running, and are you online?", { lost: true });
  }
}

// Sends a request and returns the response, which went well. Asks for a key where one is wanted, and then tries again.
export async function send(path, options = {}) {
  for (;;) {
    const used = keyOf.get();
    const response = await reach(path, options);
    if (response.ok) return response;
    const trouble = told(response.status, await response.json().catch(() => null), response.headers.get("Retry-After"));
    if (response.status !== 401) throw trouble;
    if (keyOf.get() === used && !(await keeper(trouble.message))) throw trouble;
  }
}

export async function get(path, options) {
  return (await send(path, options)).json();
}

export function sendJson(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return send(path, { method: "POST", headers, body: JSON.stringify(body), ...options });
}

export async function post(path, body, options) {
  return (await sendJson(path, body, options)).json();
}

function parsed(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  return fields.event ? { id: fields.id, name: fields.event, data: JSON.parse(fields.data) } : null;
}

// Yields the events of a response as they come. A stream that breaks off raises a `Trouble` that is `lost`.
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      yield* blocks.map(parsed).filter(Boolean);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Trouble) throw error;
    throw new Trouble("The connection to the server broke off.", { lost: true });
  } finally {
    reader.cancel().catch(() => {}); // it may have broken off, which was said
  }
}

// Sends a file as it is and tells its share on the way. (`fetch` does not tell how far an upload is.)
export function upload(path, file, tell) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    Object.entries(withKey({ "Content-Type": "application/octet-stream" })).forEach(([name, value]) =>
      request.setRequestHeader(name, value));
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total }) => tell(total ? loaded / total : 1));
    request.addEventListener("load", () =>
      request.status < 300 ? resolve(request.response) : reject(told(request.status, request.response)));
    request.addEventListener("error", () =>
      reject(new Trouble("The upload broke off: the file may be too large, or the server is gone.", { lost: true })));
    request.send(file);
  });
}

// Saves what is at an address under a name. Where a key is needed a link alone would not do.
export async function save(path, name) {
  const address = URL.createObjectURL(await (await send(path)).blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function addressOf(...parts) {
  return `/v1/${parts.map(encodeURIComponent).join("/")}`;
}
