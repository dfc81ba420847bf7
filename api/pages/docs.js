// Shows /openapi.json to people: routes with their parameters, an example of what goes in, and what comes out.
"use strict";

const byId = (id) => document.getElementById(id);
let api;

function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

// Shows what stands between back-quotes as code.
function withCode(into, text) {
  into.append(...text.split("`").map((part, at) => (at % 2 ? element("code", part) : part)));
  return into;
}

function paragraphs(text) {
  return (text ?? "").split("\n\n").filter(Boolean).map((part) => withCode(element("p", ""), part.replaceAll("\n", " ")));
}

function resolve(schema) {
  return schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema ?? {};
}

function chosen(schema) {
  const options = resolve(schema).anyOf ?? [];
  return options.length ? resolve(options.find((option) => option.type !== "null")) : resolve(schema);
}

function typeOf(schema) {
  const found = chosen(schema);
  if (found.enum) return found.enum.join(" | ");
  if (found.type === "array") return `list of ${typeOf(found.items)}`;
  if (found.contentMediaType) return "file";
  return found.type ?? "value";
}

// An example is the one given, or is put together from those of its parts.
function example(schema, depth = 0) {
  const given = schema?.examples ?? resolve(schema).examples;
  if (given) return given[0];
  if (schema?.anyOf?.some((option) => option.type === "null")) return null;
  const found = chosen(schema);
  if (found.examples) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (found.enum) return found.enum[0];
  if (found.type === "array") return depth > 4 ? [] : [example(found.items, depth + 1)];
  if (found.properties && depth < 5) {
    return Object.fromEntries(Object.entries(found.properties).map(([name, part]) => [name, example(part, depth + 1)]));
  }
  return { string: "...", integer: 0, number: 0, boolean: false, object: {} }[found.type] ?? null;
}

function definitions(rows) {
  const made = document.createElement("dl");
  for (const [name, required, type, meaning] of rows) {
    const term = document.createElement("dt");
    term.append(element("code", name), element("span", ` ${type}${required ? ", required" : ""}`, { className: "quiet" }));
    made.append(term, withCode(element("dd", ""), meaning));
  }
  return made;
}

function fieldRows(schema) {
  const { properties = {}, required = [] } = resolve(schema);
  return Object.entries(properties).map(([name, part]) => [
    name, required.includes(name), typeOf(part), part.description ?? resolve(part).description ?? "",
  ]);
}

function fenced(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const made = element("pre", text);
  made.tabIndex = 0; // so that a keyboard can scroll it
  return made;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curl(method, path, operation) {
  const filled = (operation.parameters ?? []).filter((p) => p.in === "path")
    .reduce((text, p) => text.replace(`{${p.name}}`, encodeURIComponent(example(p.schema))), path);
  // GET goes without saying, and so do POST with a body and PUT of a file.
  const verb = method === "delete" || (method === "post" && !operation.requestBody) ? `-X ${method.toUpperCase()} ` : "";
  const lines = [`curl ${verb}${location.origin}${filled}`];
  const content = operation.requestBody?.content ?? {};
  if (content["application/json"]) {
    const body = JSON.stringify(example(content["application/json"].schema));
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(body)}`);
  }
  if (content["application/octet-stream"]) lines.push("-T leave-policy.docx");
  if (content["multipart/form-data"]) {
    const { metadata } = resolve(content["multipart/form-data"].schema).properties;
    lines.push("-F files=@leave-policy.docx", "-F files=@price-list.csv", `-F metadata=${quoted(example(metadata))}`);
  }
  return lines.join(" \\\n  ");
}

function parameters(operation) {
  const rows = (operation.parameters ?? []).map((p) => [
    p.name, p.required, typeOf(p.schema), p.description ?? "",
  ]);
  for (const { schema } of Object.values(operation.requestBody?.content ?? {})) rows.push(...fieldRows(schema));
  return rows.length ? [element("h3", "What goes in"), definitions(rows)] : [];
}

function replies(operation) {
  const made = [element("h3", "What comes out")];
  for (const [status, { description, content = {} }] of Object.entries(operation.responses)) {
    made.push(withCode(element("p", "", { className: "quiet" }), `${status}  ${description === "Successful Response" ? "" : description}`));
    if (!status.startsWith("2")) continue;
    for (const [type, { schema, example: given }] of Object.entries(content)) {
      if (given) made.push(element("p", type, { className: "quiet" }));
      if (given || schema?.$ref) made.push(fenced(given ?? example(schema)));
    }
  }
  return made;
}

function route(method, path, operation) {
  const made = element("details", "", { className: "card", id: operation.operationId });
  const head = document.createElement("summary");
  head.append(element("span", method.toUpperCase(), { className: "method" }), element("code", path));
  head.append(element("div", operation.summary, { className: "quiet" }));
  made.append(head, ...paragraphs(operation.description), fenced(curl(method, path, operation)));
  made.append(...parameters(operation), ...replies(operation));
  return made;
}

async function load() {
  const response = await fetch("/openapi.json");
  api = await response.json();
  byId("description").replaceChildren(...paragraphs(api.info.description));
  const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method, path, operation })));
  for (const tag of new Set(routes.map(({ operation }) => operation.tags[0]))) {
    byId("routes").append(element("h2", tag[0].toUpperCase() + tag.slice(1)));
    const here = routes.filter(({ operation }) => operation.tags[0] === tag);
    byId("routes").append(...here.map(({ method, path, operation }) => route(method, path, operation)));
  }
  document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}

load().catch(() => {
  byId("error").textContent = "The description of the API can not be loaded; is the server still running?";
  byId("error").hidden = false;
});
