"""Documents: uploading, watching, listing, fetching and deleting them.

An upload is taken when its bytes are on disk and its row is committed; a worker reads it afterwards.
Names come from strangers: `clean_name` decides what a document is called. Knows no parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from pydantic import TypeAdapter, ValidationError
from starlette.responses import FileResponse, JSONResponse, Response

from api.problems import problem_of, status_of
from api.routes.parts import CollectionName, DocumentId, Whole, problems
from api.schemas import (
    DocumentDetail,
    DocumentPage,
    DocumentReply,
    Metadata,
    Problem,
    UploadedFile,
    UploadReply,
    VersionReply,
    check_text,
)
from ingest.worker import accept
from rag.errors import BadInput, CitewellError, Conflict
from rag.records import Collection, State
from rag.store import Store

router = APIRouter(prefix="/v1", tags=["documents"])

#: Types that a browser does not run. Anything else is handed out as plain bytes.
INERT = frozenset(
    {
        "application/pdf",
        "text/plain",
        "text/csv",
        "text/markdown",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
)
_METADATA = TypeAdapter(dict[str, Metadata])


async def only_known_parts(request: Request) -> None:
    """Refuse form fields that would be ignored, since a misspelt ``metadata`` must not be lost in silence."""
    form = await request.form()
    if unknown := sorted(set(form) - {"files", "metadata"}):
        raise BadInput(f"The form has a field {unknown[0][:100]!r}; it takes only 'files' and 'metadata'.")
    if len(form.getlist("metadata")) > 1:
        raise BadInput("The form has several fields 'metadata'; it takes one, for all files.")


@router.post(
    "/collections/{collection}/documents",
    status_code=202,
    summary="Upload files",
    responses=problems(400, 404, 409, 413, 415, 422),
    response_model=UploadReply,
    response_model_exclude_none=True,
    dependencies=[Depends(only_known_parts)],
)
def upload(
    collection: CollectionName,
    citewell: Whole,
    files: Annotated[list[UploadFile], File(description="One part for each file, with its name or relative path.")],
    metadata: Annotated[
        str | None,
        Form(
            description="A JSON object: name of the file, as in the reply, to an object of metadata. "
            "Its values are strings, numbers, true or false, and can be filtered on.",
            examples=['{"leave-policy.docx": {"department": "people", "year": 2026}}'],
        ),
    ] = None,
) -> Response | UploadReply:
    """Takes one or many files and answers at once; a worker reads them afterwards.

    Files are kept under their name, or under their relative path if that is what was sent (`2026/travel-policy.pdf`);
    of any other path only the last part is kept. A file of a known name becomes its next version, which replaces the
    one before as soon as it is read. A file that is not taken does not affect the others: its entry holds an `error`.
    If none is taken, the status is that of the first error.
    """
    found = citewell.store.catalog.collection(collection)
    given = _parse_metadata(metadata)
    if unused := sorted(set(given) - _usable_names(files)):
        raise BadInput(f"metadata: no file of this upload is called {unused[0][:200]!r}.")
    replies: list[UploadedFile] = []
    errors: list[CitewellError] = []
    taken: set[str] = set()
    for file in files:
        try:
            replies.append(_take(citewell.store, found, file, given, taken))
        except CitewellError as error:
            errors.append(error)
            replies.append(UploadedFile(name=_shown(file.filename), error=Problem(**problem_of(error))))
    reply = UploadReply(documents=replies)
    if len(errors) < len(files):
        return reply
    body = {"error": problem_of(errors[0]), **reply.model_dump(mode="json", exclude_none=True)}
    return JSONResponse(body, status_of(errors[0]))


@router.get("/collections/{collection}/documents", summary="List documents", responses=problems(404, 422))
def list_documents(
    collection: CollectionName,
    citewell: Whole,
    state: Annotated[State | None, Query(description="Only documents whose newest version is in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most documents on a page.")] = 100,
    after: Annotated[str, Query(max_length=1000, description="The `next` of the page before.")] = "",
) -> DocumentPage:
    """Lists the documents of a collection by name, a page at a time."""
    catalog = citewell.store.catalog
    here = catalog.collection(collection)
    found = catalog.list_documents(here.id, state=state, after=after, limit=limit + 1)
    more = found[limit - 1].name if len(found) > limit else None
    return DocumentPage(documents=[DocumentReply.of(document, here.name) for document in found[:limit]], next=more)


@router.get("/documents/{document_id}", summary="Show a document", responses=problems(404, 422))
def show_document(document_id: DocumentId, citewell: Whole) -> DocumentDetail:
    """Shows how far the newest version of a document is, what went wrong, and which version is searched now."""
    catalog = citewell.store.catalog
    document = catalog.document(document_id)
    shown = DocumentReply.of(document, catalog.collection_name(document.collection_id))
    live = catalog.version(document.live_version_id) if document.live_version_id else None
    return DocumentDetail(**dict(shown), live=VersionReply.of(live) if live else None)


@router.get(
    "/documents/{document_id}/content",
    summary="Fetch the original",
    responses=problems(404, 422) | {200: {"content": {"application/octet-stream": {}}, "description": "The original."}},
    response_class=FileResponse,
)
def fetch_content(document_id: DocumentId, citewell: Whole) -> FileResponse:
    """Hands out the file as it was uploaded: the version that is searched now, or else the newest one."""
    store = citewell.store
    document = store.catalog.document(document_id)
    version = store.catalog.version(document.live_version_id) if document.live_version_id else document.newest
    headers = {
        "Content-Disposition": content_disposition(document.name),
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "ETag": f'"{version.sha256}"',
    }
    media_type = version.media_type if version.media_type in INERT else "application/octet-stream"
    return FileResponse(store.originals.path(version.sha256), headers=headers, media_type=media_type)


@router.post(
    "/documents/{document_id}/retry",
    status_code=202,
    summary="Try a failed document again",
    responses=problems(404, 409, 422),
)
def retry_document(document_id: DocumentId, citewell: Whole) -> DocumentReply:
    """Queues the newest version of a document anew, for when what stood in its way is gone: a limit, a missing part."""
    catalog = citewell.store.catalog
    document = catalog.retry(document_id)
    return DocumentReply.of(document, catalog.collection_name(document.collection_id))


@router.delete("/documents/{document_id}", status_code=204, summary="Delete a document", responses=problems(404, 422))
def delete_document(document_id: DocumentId, citewell: Whole) -> None:
    """Deletes a document: from this moment no search, answer or citation can show it."""
    citewell.store.catalog.delete_document(document_id)


def clean_name(sent: str) -> str:
    """Return the name under which an uploaded file is kept; raises `BadInput` if nothing of it can be used.

    A clean relative POSIX path stays as it is, since uploads of folders send one. Of all else (absolute paths, ``..``,
    drive letters, backslashes) only the last part is kept.
    """
    try:
        check_text(sent)
    except ValueError as error:
        raise BadInput(f"The file's name {error}.") from error
    parts = sent.split("/")
    clean = "\\" not in sent and not re.match(r"[A-Za-z]:", sent) and not {"", ".", ".."} & set(parts)
    name = sent if clean else _last_part(sent)
    if not name.strip() or name in {".", ".."}:
        raise BadInput("A part of the upload has no usable file name.")
    return name


def content_disposition(name: str) -> str:
    """Return the header by which a browser saves a file under the last part of ``name`` (RFC 6266 and RFC 8187).

    The value is plain ASCII without control characters, whatever the name holds.
    """
    last = PurePosixPath(name).name
    plain = re.sub(r"[^A-Za-z0-9 ._()-]", "_", last)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='', errors='replace')}"


def _last_part(sent: str) -> str:
    part = re.split(r"[/\\]", sent)[-1]
    return re.sub(r"^[A-Za-z]:", "", part)


def _shown(sent: str | None) -> str:
    """Return what names a refused file in the reply: no path, and nothing that can not be written as UTF-8."""
    return _last_part(sent or "").encode("utf-8", "replace").decode()


def _usable_names(files: Sequence[UploadFile]) -> set[str]:
    names = set()
    for file in files:
        with suppress(BadInput):  # it gets its sentence when its turn comes
            names.add(clean_name(file.filename or ""))
    return names


def _take(
    store: Store, collection: Collection, file: UploadFile, given: Mapping[str, Metadata], taken: set[str]
) -> UploadedFile:
    """Take in one file of an upload, and add its name to ``taken``; raises what `accept` raises."""
    name = clean_name(file.filename or "")
    if name in taken:
        raise Conflict("Another file of this upload has the same name; send them one after the other.")
    version, outcome = accept(store, collection, name, file.file, given.get(name))
    taken.add(name)
    return UploadedFile.of(version, outcome)


def _parse_metadata(text: str | None) -> dict[str, Metadata]:
    if not text:
        return {}
    try:
        return _METADATA.validate_python(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step)[:100] for step in first["loc"]) or "the whole"
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise BadInput(f"metadata: {place}: {reason}.") from error
    except (ValueError, RecursionError) as error:
        raise BadInput("metadata: this is not valid JSON; send an object, file name to object.") from error
