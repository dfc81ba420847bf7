"""Documents out of a collection for good: what they are called, what was taken out of them, and what is removed.

Both doors purge in this way. Knows no output and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.assembly import Citewell
from rag.catalog import Catalog, Purged
from rag.errors import NotFound
from rag.records import Collection, Document, digest

_ID = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000


def purge(citewell: Citewell, collection: Collection, documents: Sequence[str] | None) -> Purged:
    """Delete documents, by name or id, and remove them for good; None: whatever was deleted or replaced so far.

    What was taken out of an archive or a message goes with it. A document that was deleted before is found by its name
    too. Raises `NotFound` if nothing was there of any of them.
    """
    if documents is None:
        return citewell.purge(collection)
    catalog = citewell.store.catalog
    present = [_present(catalog, collection, name) for name in documents]
    ids: list[str] = []
    for name, document in zip(documents, present, strict=True):
        if document is None:
            ids.append(name if _ID.fullmatch(name) else digest(collection.id, name))
        elif document.id not in ids:
            ids += family(catalog, document)
            catalog.delete_document(document.id)
    purged = citewell.purge(collection, list(dict.fromkeys(ids)))
    if not purged.versions and not any(present):
        raise NotFound(f"There is nothing of {documents[0][:200]!r} in the collection {collection.name}.")
    return purged


def _present(catalog: Catalog, collection: Collection, name: str) -> Document | None:
    """Return a document that is there, or None for one that may have been deleted before."""
    try:
        return catalog.find_document(collection.id, name)
    except NotFound:
        return None


def family(catalog: Catalog, document: Document) -> list[str]:
    """Return the ids of a document and of all that was taken out of it, at any depth."""
    found, after = [document.id], f"{document.name}/"
    while page := catalog.list_documents(document.collection_id, after=after, limit=_PAGE):
        for inside in page:
            if not inside.name.startswith(f"{document.name}/"):
                return found
            if inside.parent_id in found:
                found.append(inside.id)
        after = page[-1].name
    return found
