"""``citewell keys`` and ``citewell audit``: who may use the server, and who did what.

Knows the catalog alone: no server need run, and no model is opened. A secret is written to standard output by itself,
so that it can be piped; everything else about it goes to standard error.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson, Data, Yes, read_settings, read_used_settings
from api.commands.terminal import confirmed, note, say, say_json, table
from rag.access import Limits, Role

if TYPE_CHECKING:
    from rag.access import Key

Named = Annotated[str, typer.Argument(metavar="KEY", help="The id or the name of the key.")]


def create_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will have it.")],
    role: Annotated[Role, typer.Option("--role", help="reader, writer or admin.")] = Role.READER,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", metavar="NAME", help="It sees only this one; give it again for one more."),
    ] = None,
    days: Annotated[float | None, typer.Option("--days", metavar="N", min=0.01, help="It expires then.")] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", metavar="N", min=1, help="By default the setting's.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", metavar="N", min=1, help="Requests at once; by default the setting's.")
    ] = None,
    documents: Annotated[
        int | None, typer.Option("--documents", metavar="N", min=1, help="Most documents uploaded with it.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", metavar="N", min=1, help="Most bytes uploaded with it.")
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Make a key and print its secret, this once.

    The first key closes the server: from then on every request needs one, and it may listen on any address.
    """
    from rag.store import open_store

    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    limits = Limits(requests_per_minute, in_flight, documents, size)
    with open_store(read_settings(ctx, data)) as store:
        key, secret = store.catalog.create_key(name, role, collection or None, expires_at=expires_at, limits=limits)
    _say_secret(key, secret, f"Made the key {key.id}, {key.role}. Keep this secret: it is not shown again.", as_json)


def list_keys(ctx: typer.Context, as_json: AsJson = False, data: Data = None) -> None:
    """List the keys, those that are revoked or have expired too.

    With what they may and when they were last used.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.list_keys()
    if as_json:
        say_json({"keys": [_facts(key) for key in found]})
    elif not found:
        say("There are no keys: the server is open, to this machine alone.")
    else:
        header = ("ID", "ROLE", "STATE", "LAST USED", "COLLECTIONS", "NAME")
        say(table(header, [_row(key) for key in found]))


def revoke_key(ctx: typer.Context, key: Named, yes: Yes = False, data: Data = None) -> None:
    """End a key for good.

    Running servers refuse it within a second.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.key(key)
        if not confirmed(f"Revoke the key {found.name} ({found.id}) for good?", yes=yes):
            say("Nothing was revoked.")
            raise typer.Exit(1)
        store.catalog.revoke_key(found.id)
    say(f"Revoked the key {found.name} ({found.id}).")


def rotate_key(
    ctx: typer.Context,
    key: Named,
    overlap: Annotated[
        float, typer.Option("--overlap-hours", metavar="N", min=0, max=8760, help="How long the secret before holds.")
    ] = 24.0,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Give a key a new secret and print it, this once.

    The one before it holds for a while longer, so that nobody who uses it need stop.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found, secret = store.catalog.rotate_key(key, timedelta(hours=overlap))
    until = f"{found.earlier_until:%Y-%m-%d %H:%M}" if found.earlier_until else "now"
    _say_secret(found, secret, f"The key {found.id} has a new secret; the one before it holds until {until}.", as_json)


def show_audit(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Most lines.")] = 50,
    who: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only of this key, by name or id.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="KIND", help="Only of this kind, such as document.delete.")
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show who wrote or deleted what, the newest first.

    Names of documents are shown as long as the catalog has them.
    """
    from dataclasses import asdict

    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.audit_log(limit=limit, who=who, action=action)
    if as_json:
        say_json({"entries": [asdict(noted) for noted in found]})
    elif not found:
        say("Nothing was noted.")
    else:
        rows = [
            (f"{n.at:%Y-%m-%d %H:%M:%S}", n.who, n.action, n.collection or "", n.document or n.subject or "")
            for n in found
        ]
        say(table(("WHEN", "WHO", "WHAT", "COLLECTION", "OF"), rows))


def _say_secret(key: Key, secret: str, sentence: str, as_json: bool) -> None:
    if as_json:
        say_json(_facts(key) | {"secret": secret})
        return
    note(sentence)
    say(secret)


def _facts(key: Key) -> dict[str, Any]:
    from api.key_schemas import facts_of

    return facts_of(key)


def _row(key: Key) -> tuple[str, ...]:
    at = datetime.now(UTC)
    state = "in use" if key.is_valid(at) else "revoked" if key.revoked_at else "expired"
    used = f"{key.used_at:%Y-%m-%d %H:%M}" if key.used_at else "never"
    where = "all" if key.collections is None else ", ".join(sorted(key.collections))
    return key.id, str(key.role), state, used, where, key.name
