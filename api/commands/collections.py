"""``citewell collections``: the sets of documents that are searched together.

Knows the catalog alone: no model is opened.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from api.commands.options import AsJson, Data, Yes, read_settings, read_used_settings
from api.commands.terminal import confirmed, counted, say, say_json, table

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the collection.")]


def list_collections(ctx: typer.Context, as_json: AsJson = False, data: Data = None) -> None:
    """List the collections.

    With how many documents and passages of each can be found.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.list_collections()
    if as_json:
        say_json({"collections": [asdict(collection) for collection in found]})
    elif not found:
        say("There are no collections.")
    else:
        rows = [(f"{c.documents:,}", f"{c.passages:,}", f"{c.created_at:%Y-%m-%d}", c.name) for c in found]
        say(table(("DOCUMENTS", "PASSAGES", "CREATED", "COLLECTION"), rows))


def create_collection(ctx: typer.Context, name: Name, as_json: AsJson = False, data: Data = None) -> None:
    """Create an empty collection. `citewell ingest` does so by itself."""
    from rag.store import open_store

    with open_store(read_settings(ctx, data)) as store:
        collection = store.catalog.create_collection(name)
    if as_json:
        say_json(asdict(collection))
    else:
        say(f"Created the collection {name}.")


def delete_collection(ctx: typer.Context, name: Name, yes: Yes = False, data: Data = None) -> None:
    """Delete a collection with all its documents.

    For good: their text, vectors and originals are removed.
    """
    from rag.store import open_store

    with open_store(read_used_settings(ctx, data)) as store:
        found = store.catalog.collection(name)
        question = f"Delete the collection {name} with {counted(found.documents, 'document')} for good?"
        if not confirmed(question, yes=yes):
            say("Nothing was deleted.")
            raise typer.Exit(1)
        store.delete_collection(name)
    say(f"Deleted the collection {name} with {counted(found.documents, 'document')}.")
