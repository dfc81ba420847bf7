"""``citewell documents``: what is in a collection, what became of each file, and how to take one out.

Knows the catalog alone: no model is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.options import AsJson, CollectionName, Data, Yes, read_used_settings
from api.commands.parse import element_lines
from api.commands.terminal import clean, clean_lines, confirmed, counted, say, say_json, table
from rag.records import State

if TYPE_CHECKING:
    from rag.records import Document, Version
    from rag.store import Store

Name = Annotated[str, typer.Argument(metavar="DOCUMENT", help="The name of the document, or its id.")]
_PAGE = 500


def list_documents(
    ctx: typer.Context,
    collection: CollectionName,
    state: Annotated[State | None, typer.Option("--state", help="Only documents whose newest version is so.")] = None,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """List the documents of a collection.

    The state is that of the newest version; only what is ready can be found.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = list(_all(store, collection, state))
    if as_json:
        say_json({"collection": collection, "documents": [document_as_json(document) for document in found]})
        return
    if not found:
        say(f"There are no {state} documents." if state else "There are no documents.")
        return
    doing = [_doing(document.newest) for document in found]
    header = ("STATE", *(["NOW"] if any(doing) else []), "VERSION", "PASSAGES", "DOCUMENT")
    rows = [
        (d.newest.state, *([now] if any(doing) else []), d.newest.number, d.newest.passages, d.name)
        for d, now in zip(found, doing, strict=True)
    ]
    say(table(header, rows))


def _doing(version: Version) -> str:
    """Say what is done with a version, or when: its stage and how much of all is done, or its next try."""
    if version.state is State.PROCESSING:
        return f"{version.stage} {version.progress:.0%}"
    if version.state is State.QUEUED and version.not_before is not None:
        return f"next try {version.not_before:%H:%M:%S} UTC"
    return ""


def _all(store: Store, collection: str, state: State | None) -> Iterator[Document]:
    """Yield every document of a collection, page by page."""
    collection_id, after = store.catalog.collection(collection).id, ""
    while page := store.catalog.list_documents(collection_id, state=state, after=after, limit=_PAGE):
        yield from page
        after = page[-1].name


def show_document(
    ctx: typer.Context,
    document: Name,
    collection: CollectionName,
    text: Annotated[bool, typer.Option("--text", help="Print the text that was read from it.")] = False,
    elements: Annotated[bool, typer.Option("--elements", help="Print its elements with page and kind.")] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show what is known of a document, or what it says.

    State, stage, why it failed, versions, counts and metadata; with --text or --elements what was read from it.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.find_document(store.catalog.collection(collection).id, document)
        read = found.live_version_id or found.newest.id
        parsed = store.catalog.source_text(read) if text else None
        parts = store.catalog.elements(read) if elements else None
        live = store.catalog.version(found.live_version_id) if found.live_version_id else None
    if as_json:
        more: dict[str, Any] = {} if parsed is None else {"text": parsed}
        more |= {} if parts is None else {"elements": [asdict(part) for part in parts]}
        say_json({**document_as_json(found), "live_version": live and asdict(live), **more})
    elif parsed is not None:
        say(clean_lines(parsed))
    elif parts is not None:
        say(line for part in parts for line in element_lines(part))
    else:
        say(_lines(found, live))


def document_as_json(document: Document) -> dict[str, Any]:
    """Return a document with the field names of `rag.records.Document`."""
    return asdict(document)


def _lines(document: Document, live: Version | None) -> list[str]:
    newest = document.newest
    facts: dict[str, object] = {
        "document": document.name,
        "id": document.id,
        "state": f"{newest.state}, {newest.progress:.0%} done",
        "stage": newest.stage,
        "error": newest.error,
        "next try": f"{newest.not_before:%Y-%m-%d %H:%M:%S} UTC" if newest.not_before else None,
        "version": f"{newest.number}, of {newest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "searched": f"version {live.number}, {counted(live.passages, 'passage')}" if live else "nothing of it",
        "title": newest.title,
        "type": newest.media_type,
        "language": newest.language,
        "pages": newest.pages,
        "elements": newest.elements,
        "passages": newest.passages,
        "size": counted(newest.size, "byte"),
        "sha256": newest.sha256,
        "attempts": newest.attempts,
        "batch": newest.batch_id,
        "part of": document.parent_id,
    }
    facts |= {f"metadata {key}": value for key, value in sorted(newest.metadata.items())}
    wide = max(len(clean(key)) for key in facts)
    return [f"{clean(key):<{wide}}  {clean(str(value))}" for key, value in facts.items() if value is not None]


def retry_documents(
    ctx: typer.Context,
    collection: CollectionName,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT]...", help="Names or ids; without any, all that failed.")
    ] = None,
    data: Data = None,
) -> None:
    """Try documents again that could not be read.

    For when what stood in their way is gone: a limit was raised, a missing part installed. They are queued anew, for
    the worker of `citewell serve` or for `citewell worker`.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        collection_id = store.catalog.collection(collection).id
        chosen = [store.catalog.find_document(collection_id, name) for name in names or []]
        found = chosen or list(_all(store, collection, State.FAILED))
        for document in found:
            store.catalog.retry(document.id)
    say(f"Queued {counted(len(found), 'document')} anew." if found else "No document has failed.")


def delete_document(
    ctx: typer.Context, document: Name, collection: CollectionName, yes: Yes = False, data: Data = None
) -> None:
    """Take a document out of a collection.

    From then on it is neither found nor cited. Its text and original stay in the data folder, as proof of answers that
    were made from it, until `citewell purge` removes them.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.find_document(store.catalog.collection(collection).id, document)
        if not confirmed(f"Delete {clean(found.name)} from {collection}?", yes=yes):
            say("Nothing was deleted.")
            raise typer.Exit(1)
        store.catalog.delete_document(found.id)
    say(f"Deleted {clean(found.name)}.")
