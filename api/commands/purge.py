"""``citewell purge``: what was deleted or replaced, or documents by name, removed from the disk for good.

Knows options and output; what is removed is known in ``api.purging`` and below.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from api.commands.options import AsJson, CollectionName, Data, Yes, read_used_settings
from api.commands.terminal import clean, confirmed, counted, say, say_json


def purge(
    ctx: typer.Context,
    collection: CollectionName,
    documents: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOCUMENT]...", help="Names or ids; without any, all that was deleted or replaced."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Remove text, vectors and originals for good.

    Of the documents that are named, which are deleted first; without names, of all that was deleted or replaced. It
    can not be undone, and old answers can not be traced to it any more. What another document needs as well stays.
    """
    settings = read_used_settings(ctx, data)
    from rag.store import open_store

    with open_store(settings) as store:
        store.catalog.collection(collection, counted=False)  # before anybody is asked
    if not confirmed(_question(collection, documents), yes=yes):
        say("Nothing was removed.")
        raise typer.Exit(1)
    from api.purging import purge as remove
    from rag.assembly import open_citewell

    with open_citewell(settings) as citewell:
        purged = remove(citewell, citewell.store.catalog.collection(collection, counted=False), documents)
    if as_json:
        facts = asdict(purged)
        del facts["originals"]
        say_json({"collection": collection, **facts})
        return
    say(
        f"Removed for good: {counted(purged.documents, 'document')}, {counted(purged.versions, 'version')}, "
        f"{counted(purged.passages, 'passage')}, {counted(purged.vectors, 'vector')}, "
        f"{counted(purged.files, 'original')} of {counted(purged.bytes, 'byte')}."
    )


def _question(collection: str, documents: list[str] | None) -> str:
    if documents is None:
        return f"Remove all that was deleted or replaced in {collection} for good?"
    named = clean(documents[0]) if len(documents) == 1 else counted(len(documents), "document")
    return f"Delete {named} from {collection} and remove it for good?"
