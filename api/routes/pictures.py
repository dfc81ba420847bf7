"""Pages of documents as pictures, with the quote of a citation marked: for PDFs, which people know by their looks.

Knows how a page is asked for, and neither how it is drawn nor where the words stand.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from api.guard import Places
from api.page_pictures import PagePictures, key_of
from api.routes.parts import DocumentId, Whole, problems
from api.schemas import MOST_EXACT
from ingest.drawing import MOST_QUOTED, View
from rag.errors import BadInput, NotFound, UnsupportedDocument
from rag.store import Store

router = APIRouter(prefix="/v1", tags=["documents"])

#: Pages that a process has in hand; one more is answered 429.
MOST_AT_ONCE = 16
#: Characters before a quote that tell it from the same words elsewhere on the page.
_CONTEXT = 200
PDF = "application/pdf"
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The page. `Citewell-Marks` holds the places of the marks: left, top, right and bottom of each, "
        "as shares of width and height.",
        "content": {"image/png": {}},
        "headers": {"Citewell-Marks": {"schema": {"type": "string"}, "example": "[[0.12,0.41,0.86,0.43]]"}},
    },
    304: {"description": "The page is the one that the client has."},
}


@router.get(
    "/documents/{document_id}/pages/{page}",
    summary="Show a page of a PDF",
    responses=problems(400, 404, 413, 415, 422, 429, 503) | _PICTURE,
    response_class=Response,
)
async def show_page(
    document_id: DocumentId,
    page: Annotated[int, Path(ge=1, le=2**31, description="Number of the page, from 1.", examples=[2])],
    request: Request,
    citewell: Whole,
    start: Annotated[int, Query(ge=0, le=MOST_EXACT, description="Where the words to mark begin in the text.")] = 0,
    end: Annotated[int, Query(ge=0, le=MOST_EXACT, description="Where they end; nothing is marked by default.")] = 0,
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Draws a page of the version that is searched now, and marks the words at `start` to `end` of its text, as a
    citation gives them, where they are found on it.

    Words are found by their letters, so that line breaks and hyphens do not matter; on a scan none are.
    """
    places: Places = request.app.state.drawings
    pictures: PagePictures = request.app.state.pictures
    with places.one():
        original, key, view = await asyncio.to_thread(_asked, citewell.store, document_id, page, start, end)
        headers = {"ETag": f'"{key}"', "Cache-Control": "private, no-cache"}
        if headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        picture = await pictures.draw(original, key, view)
    marks = [[round(side, 4) for side in mark] for mark in picture.marks]
    headers["Citewell-Marks"] = json.dumps(marks, separators=(",", ":"))
    return Response(picture.png, headers=headers, media_type="image/png")


def _asked(store: Store, document_id: str, page: int, start: int, end: int) -> tuple[FilePath, str, View]:
    """Return the original, the key of the picture and what it shows."""
    document = store.catalog.document(document_id)
    if document.live_version_id is None:
        raise NotFound(f"Nothing of the document {document.name[:200]!r} is searched; look at its state.")
    version = store.catalog.version(document.live_version_id)
    if version.media_type != PDF:
        raise UnsupportedDocument(f"Only pages of PDFs are drawn; read this one at /v1/documents/{document.id}/text.")
    if page > (version.pages or 0):
        raise NotFound(f"The document has {version.pages or 0} pages; there is no page {page}.")
    view = View(page, *_words(store, version.id, start, end))
    return store.originals.path(version.sha256), key_of(version.sha256, view), view


def _words(store: Store, version_id: str, start: int, end: int) -> tuple[str, str]:
    """Return the words to mark and some before them."""
    if end == 0:
        return "", ""
    if not start < end <= start + MOST_QUOTED:
        raise BadInput(f"end is {end}; it must be greater than start by up to {MOST_QUOTED:,} characters.")
    text = store.catalog.source_text(version_id)
    if end > len(text):
        raise BadInput(f"end is {end}; the text has {len(text):,} characters.")
    return text[start:end], text[max(0, start - _CONTEXT) : start]
