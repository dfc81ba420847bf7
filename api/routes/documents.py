"""Documents: uploading, watching, listing, fetching, deleting and purging them.

An upload is taken when its bytes are on disk and its row is committed; a worker reads it afterwards.
Names come from strangers: `clean_name` decides what a document is called. Knows no parser.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response

from api.document_text import MOST_CHARS, read_text
from api.metadata import read_metadata, read_metadata_by_name
from api.problems import problem_of, status_of
from api.purging import purge
from api.routes.parts import CollectionName, DocumentId, Whole, problems
from api.schemas import (
    MOST_EXACT,
    DocumentDetail,
    DocumentPage,
    DocumentReply,
    DocumentTextReply,
    Problem,
    PurgeReply,
    PurgeRequest,
    UploadedFile,
    UploadReply,
    VersionReply,
    check_text,
)
from api.uploads import Form, FormFile, disk_trouble, read_file, read_form
from ingest.worker import accept, take
from rag.catalog import Accepted, Catalog
from rag.catalog.queue import check_name
from rag.errors import BadInput, CitewellError, Conflict, DocumentTooLarge, NotFound
from rag.records import Collection, State, Version
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
BatchQuery = Annotated[
    str | None, Query(alias="batch", description="Id of the batch that the files belong to; by default a new one.")
]
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                            "description": "One part for each file, with its name or relative path.",
                        },
                        "metadata": {
                            "type": "string",
                            "description": "A JSON object: name of the file, as in the reply, to an object of metadata "
                            "of any shape, up to 64 kB. Its top values, or what is in lists there, can be filtered on.",
                            "examples": ['{"leave-policy.docx": {"department": "people", "tags": ["leave", "2026"]}}'],
                        },
                    },
                }
            }
        },
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        },
    }
}


@router.post(
    "/collections/{collection}/documents",
    status_code=202,
    summary="Upload files",
    responses=problems(400, 404, 409, 413, 415, 422, 503),
    response_model=UploadReply,
    response_model_exclude_none=True,
    openapi_extra=_FORM,
)
async def upload(
    collection: CollectionName, request: Request, citewell: Whole, batch: BatchQuery = None
) -> Response | UploadReply:
    """Takes one or many files and answers at once; a worker reads them afterwards.

    Files are kept under their name, or under their relative path if that is what was sent (`2026/travel-policy.pdf`);
    of any other path only the last part is kept. A file of a known name becomes its next version, which replaces the
    one before as soon as it is read. A file that is not taken does not affect the others: its entry holds an `error`.
    If none is taken, the status is that of the first error. The files make a batch, which tells how far they are, or
    join one; open one first to send many files in several requests.
    """
    store = citewell.store
    found = await asyncio.to_thread(_target, store, collection, batch, 0)
    limits, kind = store.settings, request.headers.get("content-type", "")
    with Form(kind, store.originals, limits.ingest.max_file_bytes, limits.server.max_files_per_upload) as form:
        await read_form(request.stream(), form)
        return await asyncio.to_thread(_take_all, store, found, form, batch)


@router.put(
    "/collections/{collection}/documents/{name:path}",
    status_code=202,
    summary="Upload one file as it is",
    responses=problems(400, 404, 413, 422, 503),
    response_model=UploadReply,
    response_model_exclude_none=True,
    openapi_extra=_BODY,
)
async def put_document(
    collection: CollectionName,
    name: Annotated[str, Path(description="Name or relative path of the file.", examples=["2026/travel-policy.pdf"])],
    request: Request,
    citewell: Whole,
    batch: BatchQuery = None,
    metadata: Annotated[
        str | None, Query(description="Its metadata as a JSON object; or send the header of the same meaning.")
    ] = None,
    citewell_metadata: Annotated[str | None, Header(description="Its metadata as a JSON object in ASCII.")] = None,
) -> UploadReply:
    """Takes the body as the file, whatever its size up to the limit: the way for very large files.

    Everything else is as with a form of one file.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise BadInput("The body must be the file itself; send forms by POST to the address above this one.")
    kept, given = clean_name(name), _one_metadata(metadata, citewell_metadata)
    store = citewell.store
    length = request.headers.get("content-length", "")
    found = await asyncio.to_thread(_target, store, collection, batch, int(length) if length.isdecimal() else 0)
    try:
        with store.originals.incoming(store.settings.ingest.max_file_bytes) as incoming:
            await read_file(request.stream(), incoming)
            opened = batch or await asyncio.to_thread(store.catalog.open_batch, found.id)
            with disk_trouble():
                version, outcome = await asyncio.to_thread(take, store, found, kept, incoming, given, batch=opened)
    except (BadInput, DocumentTooLarge) as error:
        if batch is not None:
            await asyncio.to_thread(store.catalog.refuse, batch, kept, error.code, error.message)
        raise
    return UploadReply(batch=opened, documents=[UploadedFile.of(version, outcome)])


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
    responses=problems(404, 422)
    | {
        200: {
            "content": {media_type: {} for media_type in ("application/octet-stream", *sorted(INERT))},
            "description": "The original.",
        }
    },
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


@router.get("/documents/{document_id}/text", summary="Read a part of its text", responses=problems(400, 404, 422))
def show_text(
    document_id: DocumentId,
    citewell: Whole,
    start: Annotated[int, Query(ge=0, le=MOST_EXACT, description="Where the part begins, in characters from 0.")] = 0,
    length: Annotated[int, Query(ge=1, le=MOST_CHARS, description="Most characters of the part.")] = 10_000,
) -> DocumentTextReply:
    """Shows what was read of the version that is searched now: the text that all offsets of citations refer to."""
    return read_text(citewell.store.catalog, document_id, start, length)


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


@router.delete(
    "/documents/{document_id}",
    status_code=204,
    summary="Delete a document",
    responses=problems(404, 422, 503)
    | {200: {"model": PurgeReply, "description": "With `purge`: what was removed for good."}},
)
def delete_document(
    document_id: DocumentId,
    citewell: Whole,
    for_good: Annotated[
        bool, Query(alias="purge", description="Remove its text, vectors and originals from the disk too.")
    ] = False,
) -> Response:
    """Deletes a document, and what was taken out of it: from now on no search, answer or citation can show it."""
    catalog = citewell.store.catalog
    if not for_good:
        catalog.delete_document(document_id)
        return Response(status_code=204)
    document = catalog.document(document_id)
    collection = catalog.collection(catalog.collection_name(document.collection_id), counted=False)
    return JSONResponse(PurgeReply.of(purge(citewell, collection, [document.id])).model_dump())


@router.post("/collections/{collection}/purge", summary="Remove for good", responses=problems(400, 404, 422, 503))
def purge_documents(collection: CollectionName, body: PurgeRequest, citewell: Whole) -> PurgeReply:
    """Removes text, vectors and originals from the disk, and says what it removed.

    Of the documents that are named, which are deleted first; without names, of all that was deleted or replaced so far.
    What another document needs as well stays.
    """
    found = citewell.store.catalog.collection(collection, counted=False)
    return PurgeReply.of(purge(citewell, found, body.documents))


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
    check_name(name)
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


def _shown(sent: str) -> str:
    """Return what names a refused file in the reply: no path, and nothing that can not be written as UTF-8."""
    return _last_part(sent).encode("utf-8", "replace").decode()


def _target(store: Store, collection: str, batch: str | None, size: int) -> Collection:
    """Return the collection of an upload; raises `NotFound` if it, or the batch that the upload names, is not there.

    Raises `QuotaExceeded` before anything is read of what would be too much.
    """
    found = store.catalog.collection(collection, counted=False)
    if batch is not None and _collection_of(store.catalog, batch) != found.id:
        raise NotFound(f"There is no batch with the id {batch[:64]!r} in the collection {found.name}.")
    store.catalog.check_quota(found.id, 0, size)
    return found


def _collection_of(catalog: Catalog, batch: str) -> str:
    """Return the id of a batch's collection: by its first file, since counting all for each upload takes a while."""
    first = catalog.batch_files(batch, limit=1)
    return first[0].version.collection_id if first and first[0].version else catalog.batch(batch).collection_id


def _take_all(store: Store, collection: Collection, form: Form, batch: str | None) -> Response | UploadReply:
    """Take in the files of a form that has come as a whole."""
    given = read_metadata_by_name(form.metadata, "metadata") if form.metadata else {}
    if unused := sorted(set(given) - _usable_names(form)):
        raise BadInput(f"metadata: no file of this upload is called {unused[0][:200]!r}.")
    store.catalog.check_quota(collection.id, 0, sum(file.size for file in form.files))  # all of them, or none
    opened = batch or store.catalog.open_batch(collection.id)
    replies: list[UploadedFile] = []
    errors: list[CitewellError] = []
    taken: set[str] = set()
    for file in form.files:
        try:
            replies.append(UploadedFile.of(*_take(store, collection, form, file, given, taken, opened)))
        except CitewellError as error:
            errors.append(error)
            shown = _shown(file.sent)
            replies.append(UploadedFile(name=shown, error=Problem(**problem_of(error))))
            store.catalog.refuse(opened, shown, error.code, error.message)
    reply = UploadReply(batch=opened, documents=replies)
    if len(errors) < len(form.files):
        return reply
    body = {"error": problem_of(errors[0]), **reply.model_dump(mode="json", exclude_none=True)}
    return JSONResponse(body, status_of(errors[0]))


def _take(
    store: Store,
    collection: Collection,
    form: Form,
    file: FormFile,
    given: Mapping[str, dict[str, Any]],
    taken: set[str],
    batch: str,
) -> tuple[Version, Accepted]:
    """Take in one file of an upload, and add its name to ``taken``; raises what `accept` raises."""
    if file.error is not None:
        raise file.error
    name = clean_name(file.sent)
    if name in taken:
        raise Conflict("Another file of this upload has the same name; send them one after the other.")
    with disk_trouble():
        if file.incoming is not None:
            done = take(store, collection, name, file.incoming, given.get(name), batch=batch)
        else:
            done = accept(store, collection, name, form.content(file), given.get(name), batch=batch)
    taken.add(name)
    return done


def _usable_names(form: Form) -> set[str]:
    names = set()
    for file in form.files:
        with suppress(BadInput):  # it gets its sentence when its turn comes
            names.add(clean_name(file.sent))
    return names


def _one_metadata(query: str | None, header: str | None) -> dict[str, Any] | None:
    if query is not None and header is not None:
        raise BadInput("Metadata came twice, in the query and in the header; send it once.")
    if query is not None:
        return read_metadata(query, "metadata")
    if header is None:
        return None
    try:
        text = header.encode("latin-1").decode()  # the bytes as they came
    except UnicodeError as error:
        raise BadInput("The header Citewell-Metadata is not UTF-8; write JSON in ASCII, with \\u escapes.") from error
    return read_metadata(text, "Citewell-Metadata")
