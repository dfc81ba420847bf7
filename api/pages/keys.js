// Keys, for admins: who has one, making one, whose secret is shown once, and revoking one.

import { announce, button, byId, confirmed, dated, doing, element, named, quiet, show } from "./dom.js";
import { addressOf, get, keyOf, post, send } from "./server.js";
import { isOpen, may, refresh, session } from "./session.js";

let visible = false;

function rowOf(key) {
  const where = key.collections === null ? "all collections" : key.collections.join(", ");
  const facts = [where];
  if (key.expires_at) facts.push(`until ${dated(key.expires_at)}`);
  facts.push(key.last_used_at ? `last used ${dated(key.last_used_at)}` : "never used");
  const act = (label, work) => button(label, ({ currentTarget }) => doing(currentTarget, work), {
    "aria-label": `${label} the key ${key.name}`,
  });
  return element("tr", {},
    element("th", { scope: "row" }, named(key.name)),
    element("td", {}, key.role),
    element("td", { className: "quiet" }, facts.join(" · ")),
    element("td", {}, key.revoked_at ? "Revoked" : element("div", { className: "actions" },
      act("Rotate", () => rotate(key)), act("Revoke", () => revoke(key)))));
}

async function look() {
  if (!visible) return;
  show(byId("keys-open"), isOpen());
  show(byId("keys-content"), may("admin"));
  show(byId("keys-closed"), !may("admin"));
  if (!may("admin")) return;
  const { keys } = await get("/v1/keys");
  byId("key-rows").replaceChildren(...keys.map(rowOf));
  show(byId("key-table"), keys.length > 0);
}

async function revoke(key) {
  const chosen = await confirmed({
    title: ["Revoke the key ", named(key.name), "?"], text: "Whoever uses it is turned away from now on.", action: "Revoke",
  });
  if (!chosen) return;
  await send(addressOf("keys", key.id), { method: "DELETE" });
  announce("The key is revoked.");
  await refresh();
  await look();
  byId("keys-title").focus();
}

// A new secret for the same key; the one before holds for a while, so that nobody need stop.
async function rotate(key) {
  const made = await post(addressOf("keys", key.id, "rotate"), {});
  const own = key.id === session.me.key?.id;
  if (own) keyOf.set(made.secret);
  showSecret(made.secret, own, made.earlier_until);
  await look();
}

// The secret is in the reply and nowhere else; the first key of a server is taken into use at once.
function showSecret(secret, taken, until = null) {
  const field = element("input", { value: secret, readOnly: true, id: "secret", spellcheck: false });
  const copy = button("Copy", () => navigator.clipboard.writeText(secret).then(() => announce("Copied."), () => field.select()));
  byId("secret-box").replaceChildren(
    element("label", { for: "secret" }, "The new key"),
    element("div", { className: "row" }, field, copy),
    quiet("Keep it now: it is not shown again.", until && ` The one before holds until ${dated(until)}.`,
      taken && " This tab uses it from here on."));
  show(byId("secret-box"), true);
  field.focus();
  field.select();
}

async function create(event) {
  event.preventDefault();
  await doing(byId("make-key"), async () => {
    const first = isOpen();
    const days = Number(byId("key-days").value);
    const collections = [...byId("key-collections").selectedOptions].map(({ value }) => value);
    const made = await post("/v1/keys", {
      name: byId("key-name").value.trim(),
      role: byId("key-role").value,
      ...(collections.length && { collections }),
      ...(days && { expires_at: new Date(Date.now() + days * 86_400_000).toISOString() }),
    });
    if (first) keyOf.set(made.secret);
    byId("key-name").value = "";
    showSecret(made.secret, first);
    await refresh();
    await look();
  });
}

export function shown(isShown) {
  visible = isShown;
  if (!isShown) byId("secret-box").replaceChildren();
  show(byId("secret-box"), false);
  return isShown ? look() : undefined;
}

export function begin() {
  byId("key-form").addEventListener("submit", create);
  session.addEventListener("changed", () => {
    byId("key-collections").replaceChildren(...session.collections.map(({ name }) => element("option", { value: name }, name)));
  });
}
