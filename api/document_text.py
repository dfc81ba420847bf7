"""A part of what was read of a document: the parsed text that all offsets of passages and citations refer to.

Shared by the REST API and the adapters. Knows no route and no original.
"""

from __future__ import annotations

from api.schemas import DocumentTextReply
from rag.catalog import Catalog
from rag.errors import BadInput, NotFound

#: Most characters of one part.
MOST_CHARS = 100_000


def read_text(catalog: Catalog, document_id: str, start: int, length: int) -> DocumentTextReply:
    """Return up to ``length`` characters, from the offset ``start`` on, of the version that is searched now.

    Raises `NotFound` if there is no such document or nothing of it is searched yet, and `BadInput` for a part that lies
    behind the end of the text or is too long.
    """
    if not 1 <= length <= MOST_CHARS:
        raise BadInput(f"length is {length}; it must be between 1 and {MOST_CHARS:,} characters.")
    document = catalog.document(document_id)
    if document.live_version_id is None:
        raise NotFound(f"Nothing of the document {document.name[:200]!r} is searched; look at its state.")
    text = catalog.source_text(document.live_version_id)
    if not 0 <= start < max(len(text), 1):
        raise BadInput(f"start is {start}; the text has {len(text):,} characters, counted from 0.")
    version = catalog.version(document.live_version_id)
    return DocumentTextReply.of(document, version, catalog.collection_name(document.collection_id), text, start, length)
